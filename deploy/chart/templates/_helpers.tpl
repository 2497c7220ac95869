{{- define "trunkline.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "trunkline.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "trunkline.labels" -}}
{{ include "trunkline.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "trunkline.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "trunkline.fullname" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "trunkline.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "trunkline.graceSeconds" -}}
{{- with .Values.drain }}{{ add .preStopSeconds .announceSeconds .deadlineSeconds 5 }}{{ end }}
{{- end }}

{{- define "trunkline.defaults" -}}
{{- .Files.Get "files/defaults.yaml" | fromYaml | toJson -}}
{{- end }}

{{/* The sources, as JSON. */}}
{{- define "trunkline.sources" -}}
{{- .Values.config.sources | default (include "trunkline.defaults" . | fromJson).sources | toJson -}}
{{- end }}

{{/* The table [journal] of the shape, as JSON. */}}
{{- define "trunkline.journal" -}}
{{- $journal := deepCopy (get .Values .Values.shape).journal -}}
{{- $_ := set $journal "backend" .Values.shape -}}
{{- if eq .Values.shape "disk" -}}
{{- $_ := set $journal "disk" (merge (dict "dir" "/var/lib/trunkline/journal") ($journal.disk | default dict)) -}}
{{- else if not $journal.redis -}}
{{- $_ := set $journal "redis" (include "trunkline.defaults" . | fromJson).redis -}}
{{- end -}}
{{- toJson $journal -}}
{{- end }}

{{/* The whole config, as JSON. */}}
{{- define "trunkline.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $defaults := include "trunkline.defaults" . | fromJson -}}
{{- $_ := set $config "sources" (include "trunkline.sources" . | fromJson) -}}
{{- $_ := set $config "sinks" ($config.sinks | default $defaults.sinks) -}}
{{- $_ := set $config "ingress" (merge (dict "listen" "0.0.0.0:8080") ($config.ingress | default dict)) -}}
{{- $_ := set $config "admin" (merge (dict "listen" "0.0.0.0:9090") ($config.admin | default dict)) -}}
{{- if not $config.admin.token }}{{ $_ := set $config.admin "token" $defaults.token }}{{ end -}}
{{- $_ := set $config "journal" (include "trunkline.journal" . | fromJson) -}}
{{- with .Values.drain -}}
{{- $_ := set $config "drain" (dict "announce" (printf "%vs" .announceSeconds) "deadline" (printf "%vs" .deadlineSeconds)) -}}
{{- end -}}
{{- toJson $config -}}
{{- end }}

{{/*
What takes effect with the next start only: everything but sources, sinks, drain, admin.token and log.filter, which the running gateway
takes over by itself when the ConfigMap changes.
*/}}
{{- define "trunkline.restartChecksum" -}}
{{- $config := include "trunkline.config" . | fromJson -}}
{{- $kept := omit $config "sources" "sinks" "drain" -}}
{{- $_ := set $kept "admin" (omit $kept.admin "token") -}}
{{- $_ := set $kept "log" (omit ($kept.log | default dict) "filter") -}}
{{- toJson $kept | sha256sum -}}
{{- end }}

{{/* Every path that senders ask for, as a JSON list. */}}
{{- define "trunkline.paths" -}}
{{- $paths := list -}}
{{- range include "trunkline.sources" . | fromJson -}}
{{- $paths = append $paths .path -}}
{{- with .auth }}{{ with .token_path }}{{ $paths = append $paths . }}{{ end }}{{ end -}}
{{- end -}}
{{- toJson ($paths | uniq | sortAlpha) -}}
{{- end }}
