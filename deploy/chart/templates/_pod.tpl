{{/* The pod template of both shapes: `root` is the chart's scope, `mounts` are volume mounts that the shape adds. */}}
{{- define "trunkline.pod" -}}
{{- $root := .root -}}
{{- with $root.Values -}}
metadata:
  labels:
    {{- include "trunkline.labels" $root | nindent 4 }}
    {{- with .podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    checksum/restart: {{ include "trunkline.restartChecksum" $root }}
    {{- with .podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ include "trunkline.serviceAccount" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "trunkline.graceSeconds" $root }}
  {{- with .priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: { type: RuntimeDefault }
  {{- with .imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: trunkline
      image: {{ include "trunkline.image" $root }}
      imagePullPolicy: {{ .image.pullPolicy }}
      args: [--config, /etc/trunkline/gateway.toml, run]
      {{- with .env }}
      env: {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - { name: push, containerPort: 8080, protocol: TCP }
        - { name: admin, containerPort: 9090, protocol: TCP }
      # Listeners are bound once the journal is open, which takes longest after a power cut.
      startupProbe:
        httpGet: { path: /livez, port: admin }
        periodSeconds: 2
        failureThreshold: 150
      # Says that the process answers; a journal in trouble is mended by the gateway itself, not by a restart.
      livenessProbe:
        httpGet: { path: /livez, port: admin }
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: { path: /readyz, port: admin }
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 1
      lifecycle:
        preStop:
          sleep: { seconds: {{ .drain.preStopSeconds }} }
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: { drop: [ALL] }
      resources: {{- toYaml .resources | nindent 8 }}
      volumeMounts:
        # A whole folder, so that the gateway sees changes.
        - { name: config, mountPath: /etc/trunkline, readOnly: true }
        - { name: tmp, mountPath: /tmp }
        {{- range .secrets }}
        - { name: secret-{{ . }}, mountPath: /run/secrets/trunkline/{{ . }}, readOnly: true }
        {{- end }}
        {{- with $.mounts }}{{ toYaml . | nindent 8 }}{{ end }}
  volumes:
    - name: config
      configMap: { name: {{ include "trunkline.fullname" $root }} }
    - name: tmp
      emptyDir: { sizeLimit: {{ .tmpSize }} }
    {{- range .secrets }}
    - name: secret-{{ . }}
      secret: { secretName: {{ . }}, defaultMode: 0440 }
    {{- end }}
  {{- with .nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .topologySpread.enabled }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: {{ $root.Values.topologySpread.whenUnsatisfiable }}
      labelSelector:
        matchLabels: {{- include "trunkline.selector" $root | nindent 10 }}
      # Each rollout is spread by itself.
      matchLabelKeys: [{{ if eq $root.Values.shape "redis" }}pod-template-hash{{ else }}controller-revision-hash{{ end }}]
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}
