// CoreDNS with the six plugins that a cluster's DNS needs. The stock program
// carries three clouds' SDKs, which cost two minutes to build and 40 MB.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

// The order in which a query passes the plugins. Nothing forwards: pods have no
// way out of the machine, so a name of the world fails at once and not after
// seconds of waiting for a server that cannot be reached. template answers for
// the names of hosts outside that tests make up.
func init() {
	dnsserver.Directives = []string{"health", "ready", "errors", "cache", "template", "kubernetes"}
}

func main() {
	coremain.Run()
}
