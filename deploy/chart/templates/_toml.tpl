{{/*
TOML from values. Helm's own toToml writes whole numbers with a decimal point, which the gateway refuses.
*/}}
{{- define "trunkline.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toRawJson . }}{{ end }}
{{- end }}

{{- define "trunkline.toml.value" -}}
{{- if kindIs "map" . -}}
{{- $pairs := list -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $pairs = append $pairs (printf "%s = %s" (include "trunkline.toml.key" $key) (include "trunkline.toml.value" $value)) -}}
{{- end -}}
{{- end -}}
{{- printf "{ %s }" (join ", " $pairs) -}}
{{- else if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . }}{{ $items = append $items (include "trunkline.toml.value" .) }}{{ end -}}
{{- printf "[%s]" (join ", " $items) -}}
{{- else -}}
{{- toRawJson . -}}
{{- end -}}
{{- end }}

{{/*
A table: `path` its keys so far, `value` a map. Maps become tables of their own down to the second level, and "settings" of a sink;
deeper ones are written inline.
*/}}
{{- define "trunkline.toml.table" -}}
{{- $path := .path -}}
{{- $tables := list -}}
{{- $lines := list -}}
{{- range $key, $value := .value -}}
{{- if kindIs "invalid" $value -}}
{{- else if and (kindIs "map" $value) (or (lt (len $path) 2) (eq $key "settings")) -}}
{{- $tables = append $tables $key -}}
{{- else -}}
{{- $lines = append $lines (printf "%s = %s" (include "trunkline.toml.key" $key) (include "trunkline.toml.value" $value)) -}}
{{- end -}}
{{- end -}}
{{- if and $path $lines }}
[{{ join "." $path }}]
{{ end -}}
{{- range $lines }}{{ . }}
{{ end -}}
{{- $value := .value -}}
{{- range $tables -}}
{{- include "trunkline.toml.table" (dict "path" (append $path (include "trunkline.toml.key" .)) "value" (get $value .)) -}}
{{- end -}}
{{- end }}
