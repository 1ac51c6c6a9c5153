{{/* 28 characters: with "-nightly" 36, and with the scheduled minute that Kubernetes appends 45 of a RayJob's 47. */}}
{{- define "astrid.fullname" -}}
{{- $name := .Values.nameOverride | default .Release.Name | trunc 28 | trimSuffix "-" -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "the name %q must begin with a letter and hold only a-z, 0-9 and -: give another release name or nameOverride" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "astrid.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "astrid.labels" -}}
{{ include "astrid.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "astrid.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What every pod has. Service links would look like settings of ours. */}}
{{- define "astrid.pod" -}}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "astrid.container" -}}
image: {{ include "astrid.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{- define "astrid.databaseEnv" -}}
- name: ASTRID_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.existingSecret }}
      key: ASTRID_DATABASE_URL
{{- end -}}

{{/* The RayJob of a night; its reasons stand in kuberay/nightly-rayjob.yaml. The name is given when it is created. */}}
{{- define "astrid.rayjob" -}}
apiVersion: ray.io/v1
kind: RayJob
metadata:
  labels:
    {{- include "astrid.labels" . | nindent 4 }}
    app.kubernetes.io/component: nightly
spec:
  clusterSelector:
    ray.io/cluster: {{ .Values.nightly.rayCluster }}
  submissionMode: K8sJobMode
  entrypoint: {{ .Values.nightly.entrypoint | quote }}
  entrypointNumCpus: {{ .Values.nightly.entrypointNumCpus }}
  backoffLimit: 0
  activeDeadlineSeconds: {{ int64 .Values.nightly.activeDeadlineSeconds }}
  preRunningDeadlineSeconds: {{ int64 .Values.nightly.preRunningDeadlineSeconds }}
  deletionStrategy:
    deletionRules:
      - policy: DeleteSelf
        condition:
          jobStatus: SUCCEEDED
          ttlSeconds: {{ int64 .Values.nightly.keepSucceededSeconds }}
      - policy: DeleteSelf
        condition:
          jobStatus: FAILED
          ttlSeconds: {{ int64 .Values.nightly.keepFailedSeconds }}
      - policy: DeleteSelf
        condition:
          jobDeploymentStatus: Failed
          ttlSeconds: {{ int64 .Values.nightly.keepFailedSeconds }}
  submitterConfig:
    backoffLimit: {{ .Values.nightly.submitter.backoffLimit }}
  submitterPodTemplate:
    metadata:
      labels:
        {{- include "astrid.labels" . | nindent 8 }}
        app.kubernetes.io/component: nightly-submitter
    spec:
      restartPolicy: Never
      automountServiceAccountToken: false
      {{- include "astrid.pod" . | nindent 6 }}
      containers:
        - name: ray-job-submitter
          image: {{ include "astrid.image" . }}
          imagePullPolicy: {{ .Values.image.pullPolicy }}
          securityContext:
            allowPrivilegeEscalation: false
            capabilities:
              drop: [ALL]
          resources:
            {{- toYaml .Values.nightly.submitter.resources | nindent 12 }}
{{- end -}}
