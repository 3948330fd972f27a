{{/*
The digest of a part's image, or nothing; called with (list $ "proxy"). A digest of the values
wins, then a tag of the values, then the digests that a release packs as a file of its chart. They
are no values: those of a former chart come back by --reuse-values or -f, with its digests.
*/}}
{{- define "weft.digest" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- $image := $root.Values.image -}}
{{- with get ($image.digests | default dict) $part -}}
{{ . }}
{{- else -}}
{{- if not $image.tag }}{{ get ($root.Files.Get "image-digests.yaml" | fromYaml) $part }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* REGISTRY/REPOSITORY/PART@DIGEST, or PART:TAG without a digest; called with (list $ "proxy"). */}}
{{- define "weft.image" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- $image := $root.Values.image -}}
{{- with $image.registry }}{{ . }}/{{ end -}}
{{ $image.repository }}/{{ $part }}
{{- with include "weft.digest" . }}@{{ . }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end -}}

{{/*
The processors that the images are built for, as a JSON list. A release packs them beside its
digests; of images of one's own, by tag or digest, no more than amd64 is known.
*/}}
{{- define "weft.architectures" -}}
{{- $image := .Values.image -}}
{{- $packed := dict -}}
{{- if not (or $image.tag (compact (values ($image.digests | default dict)))) -}}
{{- $packed = .Files.Get "image-digests.yaml" | fromYaml -}}
{{- end -}}
{{- $image.architectures | default (get $packed "architectures") | default (list "amd64") | toJson -}}
{{- end -}}

{{/* The same of the image of Gateways, which may be one of one's own. */}}
{{- define "weft.gatewayArchitectures" -}}
{{- if .Values.gateway.image -}}
{{- .Values.image.architectures | default (list "amd64") | toJson -}}
{{- else -}}
{{- include "weft.architectures" . -}}
{{- end -}}
{{- end -}}

{{/* The proxy's version. Its digest is of this chart's version, whatever the tag is. */}}
{{- define "weft.proxyVersion" -}}
{{- $image := .Values.image -}}
{{- if include "weft.digest" (list . "proxy") }}{{ .Chart.AppVersion }}{{ else }}{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end -}}

{{/* Labels that never change in the life of a part, so selectors may use them. */}}
{{- define "weft.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: weft
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All recommended labels, and commonLabels; called with (list $ "controller"). */}}
{{- define "weft.labels" -}}
{{- include "weft.labelsWith" (append . dict) -}}
{{- end -}}

{{/*
The same with further labels, which win over commonLabels: one map, since a name that stands
twice is refused by the API server. Called with (list $ "controller" LABELS).
*/}}
{{- define "weft.labelsWith" -}}
{{- $root := index . 0 -}}
{{ include "weft.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: weft
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version | replace "+" "_" }}
{{- with merge (dict) (index . 2 | default dict) ($root.Values.commonLabels | default dict) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of a part's pods; called with (list $ "controller"). */}}
{{- define "weft.podLabels" -}}
{{- $part := index (index . 0).Values (index . 1) -}}
{{- include "weft.labelsWith" (append . ($part.podLabels | default dict)) -}}
{{- end -}}

{{/* Annotations of a part's pods, its values before ours; called with (list $ "controller"). */}}
{{- define "weft.podAnnotations" -}}
{{- $part := index (index . 0).Values (index . 1) -}}
{{- $all := dict "prometheus.io/scrape" "true" "prometheus.io/port" "8080" -}}
{{- range $name, $value := $part.podAnnotations }}{{- $_ := set $all $name $value -}}{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{/*
What Pod Security Admission's restricted profile asks of a pod. OpenShift gives every
namespace user ids of its own and refuses others, so there none is named.
*/}}
{{- define "weft.podSecurity" -}}
runAsNonRoot: true
{{- if not (or (eq .Values.platform "openshift") (.Capabilities.APIVersions.Has "security.openshift.io/v1")) }}
runAsUser: 65532
runAsGroup: 65532
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* The same for a container. */}}
{{- define "weft.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Environment that says where a pod of ours runs. */}}
{{- define "weft.whereabouts" -}}
- name: WEFT_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: WEFT_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: WEFT_POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: WEFT_SERVICE_ACCOUNT
  valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}
{{- end -}}

{{/*
Not empty where a part of the automation is switched on; called with (list $ "releases"). What
values of a former chart do not have is on.
*/}}
{{- define "weft.automation" -}}
{{- $parts := (index . 0).Values.automation | default dict -}}
{{- $part := get $parts (index . 1) | default dict -}}
{{- if ne (get $part "enabled" | toString) "false" }}true{{ end -}}
{{- end -}}

{{/*
Not empty where routes of the Gateway API are read. What values of a former chart do not have is on.
*/}}
{{- define "weft.gatewayApi" -}}
{{- if ne (get (.Values.gatewayApi | default dict) "enabled" | toString) "false" }}true{{ end -}}
{{- end -}}

{{/*
Not empty where the agents of nodes redirect the traffic of pods. What values of a former chart do
not have is off.
*/}}
{{- define "weft.byNode" -}}
{{- if eq (get (.Values.capture | default dict) "mode" | toString) "node" }}true{{ end -}}
{{- end -}}

{{/* Where the issuer comes from, as a JSON object; values of a former chart do not have it. */}}
{{- define "weft.issuer" -}}
{{- $issuer := .Values.identity.issuer | default dict -}}
{{- $roots := $issuer.roots | default dict -}}
{{- dict
  "source" ($issuer.source | default "generated")
  "secretName" ($issuer.secretName | default "")
  "directory" ($issuer.directory | default "")
  "configMap" ($roots.configMap | default "")
  "key" ($roots.key | default "ca.crt")
  | toJson -}}
{{- end -}}

{{/*
Not empty where Gateways are run. What values of a former chart do not have is off.
*/}}
{{- define "weft.gateway" -}}
{{- $gateway := .Values.gateway | default dict -}}
{{- if eq (get $gateway "enabled" | toString) "true" }}
{{- if not (include "weft.gatewayApi" .) }}
{{- fail "\n\ngateway.enabled is true, but gatewayApi.enabled is false: then the controller reads no route that a Gateway could serve.\nSet gatewayApi.enabled=true, or leave gateway.enabled false.\n" }}
{{- end }}
{{- $excluded := include "weft.excluded" . | fromJsonArray }}
{{- range $gateway.namespaces }}
{{- if has . $excluded }}
{{- fail (printf "\n\ngateway.namespaces names %s, which the mesh leaves alone: it gets no trust bundle, so no Gateway could start there.\nName another namespace, or take it out of excludedNamespaces.\n" .) }}
{{- end }}
{{- end }}true
{{- end }}
{{- end -}}

{{/* Namespaces without webhooks and trust bundle, as a JSON list: the release's own included. */}}
{{- define "weft.excluded" -}}
{{- append .Values.excludedNamespaces .Release.Namespace | uniq | toJson -}}
{{- end -}}

{{/*
Which nodes a pod may run on, and whose images it may pull: those of a part's values; called with
(list $ "controller" AFFINITY). One processor is a selector. Several are an expression in each term
of the affinity, unless the values select one: a selector names one value.
*/}}
{{- define "weft.nodes" -}}
{{- $root := index . 0 -}}
{{- $part := index $root.Values (index . 1) -}}
{{- $architectures := include "weft.architectures" $root | fromJsonArray -}}
{{- $selector := merge (dict) ($part.nodeSelector | default dict) (dict "kubernetes.io/os" "linux") -}}
{{- $affinity := index . 2 | default dict -}}
{{- if eq (len $architectures) 1 -}}
{{- $selector = merge $selector (dict "kubernetes.io/arch" (first $architectures)) -}}
{{- else if not (hasKey $selector "kubernetes.io/arch") -}}
{{- $affinity = include "weft.affinity" (list $affinity $architectures) | fromJson -}}
{{- end -}}
nodeSelector:
  {{- toYaml $selector | nindent 2 }}
{{- with $part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
An affinity with one of these processors in each of its required terms, as JSON; called with
(list AFFINITY ARCHITECTURES). An empty term matches no node, and stays empty.
*/}}
{{- define "weft.affinity" -}}
{{- $affinity := index . 0 -}}
{{- $one := dict "key" "kubernetes.io/arch" "operator" "In" "values" (index . 1) -}}
{{- $name := "requiredDuringSchedulingIgnoredDuringExecution" -}}
{{- $nodes := get $affinity "nodeAffinity" | default dict -}}
{{- $required := get $nodes $name | default dict -}}
{{- $terms := list -}}
{{- range get $required "nodeSelectorTerms" | default list -}}
{{- if or .matchExpressions .matchFields -}}
{{- $terms = append $terms (merge (dict "matchExpressions" (append (.matchExpressions | default list) $one)) .) -}}
{{- else -}}
{{- $terms = append $terms . -}}
{{- end -}}
{{- else -}}
{{- $terms = list (dict "matchExpressions" (list $one)) -}}
{{- end -}}
{{- $required = merge (dict "nodeSelectorTerms" $terms) $required -}}
{{- merge (dict "nodeAffinity" (merge (dict $name $required) $nodes)) $affinity | toJson -}}
{{- end -}}

{{/*
Where the scheduler puts a part's replicas: apart, if it can. A constraint of the values
without labelSelector counts the part's own pods.
*/}}
{{- define "weft.placement" -}}
{{- $root := index . 0 -}}
{{- $part := index $root.Values (index . 1) -}}
topologySpreadConstraints:
{{- range $part.topologySpreadConstraints }}
  - {{- . | toYaml | nindent 4 }}
  {{- if not (hasKey . "labelSelector") }}
    labelSelector:
      matchLabels:
        {{- include "weft.selector" $ | nindent 8 }}
  {{- end }}
{{- else }}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    # Old replicas do not push new ones together during a rollout.
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "weft.selector" $ | nindent 8 }}
{{- end }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{ include "weft.nodes" (append . $part.affinity) }}
{{- end -}}

{{/* Volumes of a part's pods and where its container mounts them; called with (list $ "controller"). */}}
{{- define "weft.volumes" -}}
{{- with (index (index . 0).Values (index . 1)).extraVolumes }}
volumes:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
{{- define "weft.volumeMounts" -}}
{{- with (index (index . 0).Values (index . 1)).extraVolumeMounts }}
volumeMounts:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Probes and ports that controller and injector share. */}}
{{- define "weft.ports" -}}
ports:
  - {name: serve, containerPort: 8443}
  - {name: admin, containerPort: 8080}
startupProbe:
  httpGet: {path: /live, port: admin}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /live, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /ready, port: admin}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
# Endpoints and their users learn that this replica goes before it does.
lifecycle:
  preStop:
    sleep: {seconds: 3}
{{- end -}}

{{/*
Not empty where helm sees the cluster. What only helm may make, and at its time, is
rendered nowhere else: `kubectl apply` takes a hook for an object like any other, and
would uninstall the mesh that it installs.
*/}}
{{- define "weft.seesCluster" -}}
{{- if lookup "v1" "Namespace" "" "kube-system" }}true{{ end -}}
{{- end -}}
