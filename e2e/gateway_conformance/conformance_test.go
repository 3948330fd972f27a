// Package gatewayconformance runs the official conformance suite of the Gateway API against
// the mesh in the cluster of KUBECONFIG: profiles MESH-HTTP and MESH-GRPC.
//
// The suite passes a profile whose extended features are not claimed, and skips the tests of
// what is not claimed without a failure. So the claims stand here one by one, and this test
// also fails where a test of the mesh did not run or a feature of the profiles is not claimed.
package gatewayconformance

import (
	"slices"
	"sync"
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
	meshtests "sigs.k8s.io/gateway-api/conformance/tests/mesh"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// Extended features of both profiles.
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

// Features of no mesh profile that tests of the mesh need. Without them these are skipped.
var besides = []features.FeatureName{
	features.SupportHTTPRouteParentRefPort,
	features.SupportHTTPRouteResponseHeaderModification,
	features.SupportHTTPRoute303RedirectStatusCode,
	features.SupportHTTPRoute307RedirectStatusCode,
	features.SupportHTTPRoute308RedirectStatusCode,
}

// Namespaces of the suite whose pods get a proxy.
var meshed = map[string]string{"weft.dev/inject": "enabled"}

func TestConformance(t *testing.T) {
	for feature := range features.MeshExtendedFeatures {
		if !slices.Contains(ofTheMesh, feature.Name) {
			t.Errorf("%s is an extended feature of the mesh profiles and is not claimed", feature.Name)
		}
	}

	// Report, version and the like come as flags of the suite.
	options := conformance.DefaultOptions(t)
	options.ConformanceProfiles = []suite.ConformanceProfileName{
		suite.MeshHTTPConformanceProfileName,
		suite.MeshGRPCConformanceProfileName,
	}
	options.SupportedFeatures = slices.Concat(ofTheMesh, besides)
	options.NamespaceLabels = meshed
	options.DisableParallelTests = true

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
	for _, test := range meshtests.MeshConformanceTests {
		if !ran.has(test.ShortName) {
			t.Errorf("%s did not run", test.ShortName)
		}
	}
	t.Logf("%d of %d tests of the mesh ran", len(ran.all), len(meshtests.MeshConformanceTests))
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
