// Package gatewayconformance runs the official conformance suite of the Gateway API against
// the mesh and its Gateways in the cluster of KUBECONFIG: profiles MESH-HTTP, MESH-GRPC,
// GATEWAY-HTTP, GATEWAY-GRPC, GATEWAY-TLS and GATEWAY-TCP.
//
// The suite passes a profile whose extended features are not claimed, and skips the tests of
// what is not claimed without a failure. So the claims stand here one by one, and this test
// also fails where a test of claimed features did not run, where a feature of the profiles is
// neither claimed nor listed as not served, and where the GatewayClass reports other features
// than those that the suite ran with.
package gatewayconformance

import (
	"slices"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/tests"
	meshtests "sigs.k8s.io/gateway-api/conformance/tests/mesh"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// Profiles, of which each core test has to pass.
var profiles = []suite.ConformanceProfileName{
	suite.MeshHTTPConformanceProfileName,
	suite.MeshGRPCConformanceProfileName,
	suite.GatewayHTTPConformanceProfileName,
	suite.GatewayGRPCConformanceProfileName,
	suite.GatewayTLSConformanceProfileName,
	suite.GatewayTCPConformanceProfileName,
}

// Core features of the profiles of Gateways. The suite adds them to what is claimed.
var core = []features.FeatureName{
	features.SupportGateway,
	features.SupportReferenceGrant,
	features.SupportHTTPRoute,
	features.SupportGRPCRoute,
	features.SupportTLSRoute,
	features.SupportTCPRoute,
}

// Extended features of both profiles of the mesh.
var ofTheMesh = []features.FeatureName{
	features.SupportMeshClusterIPMatching,
	features.SupportMeshConsumerRoute,
	features.SupportMeshHTTPRouteRewritePath,
	features.SupportMeshHTTPRouteSchemeRedirect,
	features.SupportMeshHTTPRouteRedirectPort,
	features.SupportMeshHTTPRouteRedirectPath,
	features.SupportMeshHTTPRouteBackendRequestHeaderModification,
	features.SupportMeshHTTPRouteQueryParamMatching,
	features.SupportMeshHTTPRouteNamedRouteRule,
}

// Extended features of the profiles of Gateways: 31 of 38 of GATEWAY-HTTP. Three of them need
// the experimental channel, which alone has the field `retry`.
var ofGateways = []features.FeatureName{
	features.SupportGatewayPort8080,
	features.SupportGatewayHTTPListenerIsolation,
	features.SupportGatewayHTTPSListenerDetectMisdirectedRequests,
	features.SupportGatewayInfrastructure,
	features.SupportGatewayAddressEmpty,
	features.SupportHTTPRouteDestinationPortMatching,
	features.SupportHTTPRouteBackendRequestHeaderModification,
	features.SupportHTTPRouteQueryParamMatching,
	features.SupportHTTPRouteMethodMatching,
	features.SupportHTTPRouteResponseHeaderModification,
	features.SupportHTTPRoutePortRedirect,
	features.SupportHTTPRouteSchemeRedirect,
	features.SupportHTTPRoutePathRedirect,
	features.SupportHTTPRouteHostRewrite,
	features.SupportHTTPRoutePathRewrite,
	features.SupportHTTPRouteRequestMirror,
	features.SupportHTTPRouteRequestMultipleMirrors,
	features.SupportHTTPRouteRequestPercentageMirror,
	features.SupportHTTPRouteRequestTimeout,
	features.SupportHTTPRouteBackendTimeout,
	features.SupportHTTPRouteParentRefPort,
	features.SupportHTTPRouteBackendProtocolH2C,
	features.SupportHTTPRouteBackendProtocolWebSocket,
	features.SupportHTTPRouteNamedRouteRule,
	features.SupportHTTPRouteCORS,
	features.SupportHTTPRoute303RedirectStatusCode,
	features.SupportHTTPRoute307RedirectStatusCode,
	features.SupportHTTPRoute308RedirectStatusCode,
	features.SupportHTTPRouteRetry,
	features.SupportHTTPRouteRetryBackendTimeout,
	features.SupportHTTPRouteRetryConnectionError,
	// Of no profile.
	features.SupportGRPCRouteNamedRouteRule,
}

// Extended features of the profiles of Gateways that are not served, on purpose. One that a
// newer suite adds stands in neither list, and fails.
var notServed = []features.FeatureName{
	features.SupportGatewayStaticAddresses,
	features.SupportGatewayBackendClientCertificate,
	features.SupportGatewayFrontendClientCertificateValidation,
	features.SupportGatewayFrontendClientCertificateValidationInsecureFallback,
	features.SupportListenerSet,
	features.SupportBackendTLSPolicy,
	features.SupportBackendTLSPolicySANValidation,
	features.SupportTLSRouteModeTerminate,
	features.SupportTLSRouteModeMixed,
}

// Of the chart.
const gatewayClass = "weft"

// Namespaces of the suite whose pods get a proxy; Gateways are proxies themselves.
var meshed = map[string]string{"weft.dev/inject": "enabled"}

func TestConformance(t *testing.T) {
	everyFeatureIsJudged(t)

	// Report, version and the like come as flags of the suite.
	options := conformance.DefaultOptions(t)
	options.ConformanceProfiles = profiles
	options.SupportedFeatures = slices.Concat(ofTheMesh, ofGateways)
	options.GatewayClassName = gatewayClass
	options.NamespaceLabels = meshed
	options.DisableParallelTests = true
	// Thirty pods start at once, each with a proxy.
	options.TimeoutConfig.NamespacesMustBeReady = 10 * time.Minute

	ran := &names{}
	options.Hook = func(t *testing.T, test suite.ConformanceTest, _ *suite.ConformanceTestSuite) {
		if !t.Skipped() {
			ran.add(test.ShortName)
		}
	}
	conformance.RunConformanceWithOptions(t, options)

	if options.RunTest != "" {
		return
	}
	claimed := sets.New(slices.Concat(core, ofTheMesh, ofGateways)...).Insert(features.SupportMesh)
	claimedTests := 0
	for _, test := range tests.ConformanceTests {
		if !claimed.HasAll(test.Features...) {
			continue
		}
		claimedTests++
		if !ran.has(test.ShortName) {
			t.Errorf("%s did not run", test.ShortName)
		}
	}
	for _, test := range meshtests.MeshConformanceTests {
		if !ran.has(test.ShortName) {
			t.Errorf("%s did not run", test.ShortName)
		}
	}
	classReportsWhatRan(t, options)
	t.Logf("%d of %d claimed tests ran; %d of %d features of GATEWAY-HTTP are claimed",
		len(ran.all), claimedTests, len(intersection(extendedHTTP(), claimed)), extendedHTTP().Len())
}

func everyFeatureIsJudged(t *testing.T) {
	for feature := range features.MeshExtendedFeatures {
		if !slices.Contains(ofTheMesh, feature.Name) {
			t.Errorf("%s is an extended feature of the mesh profiles and is not claimed", feature.Name)
		}
	}
	extended := extendedHTTP().Union(features.SetsToNamesSet(
		features.TLSRouteExtendedFeatures,
		features.TCPRouteExtendedFeatures,
		features.GRPCRouteExtendedFeatures,
	)).Difference(sets.New(core...))
	for feature := range extended {
		if slices.Contains(ofGateways, feature) == slices.Contains(notServed, feature) {
			t.Errorf("%s must be either claimed or listed as not served", feature)
		}
	}
}

// Extended features of the profile GATEWAY-HTTP.
func extendedHTTP() sets.Set[features.FeatureName] {
	return sets.New(suite.GatewayHTTPConformanceProfile.ExtendedFeatures.UnsortedList()...)
}

func intersection(some, others sets.Set[features.FeatureName]) []features.FeatureName {
	return some.Intersection(others).UnsortedList()
}

// What users read in the status of the GatewayClass is what the suite has tested.
func classReportsWhatRan(t *testing.T, options suite.ConformanceOptions) {
	class := &gatewayv1.GatewayClass{}
	if err := options.Client.Get(t.Context(), types.NamespacedName{Name: gatewayClass}, class); err != nil {
		t.Fatalf("GatewayClass %s: %v", gatewayClass, err)
	}
	reported := sets.New[features.FeatureName]()
	for _, feature := range class.Status.SupportedFeatures {
		reported.Insert(features.FeatureName(feature.Name))
	}
	claimed := sets.New(slices.Concat(core, ofGateways)...)
	if missing := sets.List(claimed.Difference(reported)); len(missing) > 0 {
		t.Errorf("GatewayClass %s does not report %v, which the suite has tested", gatewayClass, missing)
	}
	if untested := sets.List(reported.Difference(claimed)); len(untested) > 0 {
		t.Errorf("GatewayClass %s reports %v, which the suite has not tested", gatewayClass, untested)
	}
}

// names is a list that hooks of tests write, which may run beside each other.
type names struct {
	mutex sync.Mutex
	all   []string
}

func (names *names) add(name string) {
	names.mutex.Lock()
	defer names.mutex.Unlock()
	names.all = append(names.all, name)
}

func (names *names) has(name string) bool {
	names.mutex.Lock()
	defer names.mutex.Unlock()
	return slices.Contains(names.all, name)
}
