{{/*
Fails where helm sees a cluster that lacks a kind of the Prometheus Operator; called with
(list $ "podMonitor" "PodMonitor"). `helm template` sees none, so it writes what was asked
for: aggregated APIs are among what every cluster offers, and not among what helm assumes.
*/}}
{{- define "weft.monitoring.offered" -}}
{{- $root := index . 0 -}}
{{- $offers := $root.Capabilities.APIVersions -}}
{{- if and ($offers.Has "apiregistration.k8s.io/v1") (not ($offers.Has (printf "monitoring.coreos.com/v1/%s" (index . 2)))) -}}
{{- fail (printf "\n\nmonitoring.%s is true, but this cluster has no kind %s of monitoring.coreos.com/v1.\nInstall the Prometheus Operator first, or leave the value false: see docs/monitoring.md.\n" (index . 1) (index . 2)) -}}
{{- end -}}
{{- end -}}

{{/* Labels of an object that Prometheus has to select. */}}
{{- define "weft.monitoring.labels" -}}
{{ include "weft.labelsWith" (list . "monitoring" .Values.monitoring.labels) }}
{{- end -}}
