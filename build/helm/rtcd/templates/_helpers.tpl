{{- define "rtcd.labels" -}}
app.kubernetes.io/name: rtcd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "rtcd.name" -}}
{{- if contains "rtcd" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-rtcd{{ end }}
{{- end }}
