{{- /* Made by crdgen from the types in crds/; edit those. */ -}}
{{/* All SMI definitions, a JSON list. */}}
{{- define "weft.smi.definitions" -}}
["httproutegroups.specs.smi-spec.io","identitybindings.access.smi-spec.io","tcproutes.specs.smi-spec.io","trafficsplits.split.smi-spec.io","traffictargets.access.smi-spec.io","udproutes.specs.smi-spec.io"]
{{- end -}}
{{/* Those whose versions the injector converts. */}}
{{- define "weft.smi.converted" -}}
["httproutegroups.specs.smi-spec.io","tcproutes.specs.smi-spec.io","trafficsplits.split.smi-spec.io","traffictargets.access.smi-spec.io"]
{{- end -}}
