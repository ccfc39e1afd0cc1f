{{- define "contact-sync.name" -}}
{{- if contains "contact-sync" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-contact-sync" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- /* What picks a part's pods: (dict "root" $ "part" "worker") */}}
{{- define "contact-sync.selector" -}}
app.kubernetes.io/name: contact-sync
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "contact-sync.labels" -}}
{{ include "contact-sync.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "contact-sync.image" -}}
{{- with .Values.image }}{{ if .digest }}{{ printf "%s@%s" .repository .digest }}{{ else }}{{ printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) }}{{ end }}{{ end }}
{{- end }}

{{- /* Which Redis it is must be said in one place, or a forgotten value would bring an empty one. */}}
{{- define "contact-sync.check-redis" -}}
{{- if and .Values.redis.url .Values.redis.trial }}{{ fail "redis.url names a Redis, and redis.trial brings another: say redis.trial=false" }}{{ end }}
{{- if not (or .Values.redis.url .Values.redis.trial .Values.settingsSecret) }}{{ fail "no Redis: say redis.url, or settingsSecret with CONTACT_SYNC_REDIS_URL in it, or redis.trial=true" }}{{ end }}
{{- end }}

{{- /* As long as what began takes, and more than a flush's 5 s beside it. */}}
{{- define "contact-sync.worker-grace" -}}
{{ max 60 (add 10 (ceil (float64 (dig "REQUEST_TIMEOUT_SECONDS" 10 .Values.settings)))) }}
{{- end }}

{{- define "contact-sync.pod" -}}
{{- with .root.Values.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
labels: {{- include "contact-sync.labels" . | nindent 2 }}
{{- end }}

{{- /* What all pods have: nobody special, no token of the cluster's, spread over nodes and zones. */}}
{{- define "contact-sync.pod-spec" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user | default 10001 }}
  runAsGroup: {{ .user | default 10001 }}
  fsGroup: {{ .user | default 10001 }}
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
topologySpreadConstraints:
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "contact-sync.selector" $ | nindent 8 }}
{{- end }}
{{- end }}

{{- define "contact-sync.locked-down" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* What all containers of contact-sync have; settings come by environment, secrets by file. The working directory is
       where a file .env is read from, which settingsSecret brings. */}}
{{- define "contact-sync.container" -}}
image: {{ include "contact-sync.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- if .root.Values.settingsSecret }}
workingDir: /run/contact-sync
{{- end }}
securityContext: {{- include "contact-sync.locked-down" . | nindent 2 }}
resources: {{- toYaml .values.resources | nindent 2 }}
env:
{{- if .root.Values.redis.url }}
  - {name: CONTACT_SYNC_REDIS_URL, value: {{ .root.Values.redis.url | quote }}}
{{- else if .root.Values.redis.trial }}
  - {name: CONTACT_SYNC_REDIS_URL, value: {{ printf "redis://%s-redis:6379/0" (include "contact-sync.name" .root) | quote }}}
{{- end }}
{{- with .root.Values.redis.brokerUrl }}
  - {name: CONTACT_SYNC_BROKER_URL, value: {{ . | quote }}}
{{- end }}
{{- range $name, $value := .root.Values.settings }}
  - {name: CONTACT_SYNC_{{ $name }}, value: {{ ternary $value (toJson $value) (kindIs "string" $value) | quote }}}
{{- end }}
{{- range .files }}
  - {name: CONTACT_SYNC_{{ upper . }}_FILE, value: /run/secrets/contact-sync/{{ . }}}
{{- end }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
{{- if .secret }}
  - {name: secret, mountPath: /run/secrets/contact-sync, readOnly: true}
{{- end }}
{{- if .root.Values.settingsSecret }}
  - {name: settings, mountPath: /run/contact-sync, readOnly: true}
{{- end }}
{{- end }}

{{- define "contact-sync.volumes" -}}
- name: tmp
  emptyDir: {}
{{- if .secret }}
- name: secret
  secret: {secretName: {{ .secret }}, defaultMode: 0440}
{{- end }}
{{- with .root.Values.settingsSecret }}
- name: settings
  secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: env, path: .env}]}
{{- end }}
{{- end }}
