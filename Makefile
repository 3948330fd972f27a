# The commands people type. `make` alone prints them. A recipe that sets a variable says
# `exec`, so that a signal to make reaches the program and no shell before it.
.DEFAULT_GOAL := help
.PHONY: automation gateway-conformance shape breaks mutants proxy profile field dashboard eyes attack-control bench-eyes bench-paired bench-resilience fuzz help cluster cluster-down cluster-smoke images check test test-all conformance demo cli fmt lint deny proto release emulated bench bench-quick flame bench-control scale interop attack skew drill

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

cluster: ## start the local Kubernetes, or take the running one over
	@e2e/cluster/up

cluster-down: ## remove it without a trace
	@e2e/cluster/down

cluster-smoke: ## prove that the cluster works, without any mesh in it
	@e2e/cluster/smoke

images: ## build and load Weft's images (PROFILE=release, IMAGES="proxy echo")
	@PROFILE="$(PROFILE)" exec e2e/images/build $(IMAGES)

demo: ## a cluster, the mesh, a small shop, and what the mesh sees
	@e2e/demo/run

proxy: ## the proxy as users get it, one static file, compiled by this machine's profile, if it has one
	@proxy/profile/build

profile: ## make that profile, 16 min, into ~/.cache/weft/profile; before a release or a benchmark
	@proxy/profile/train

release: ## what a release consists of, of the checked out commit, in target/release-VERSION, an hour (ARCH=amd64, half of it)
	@ARCH="$(ARCH)" exec e2e/release/run

emulated: ## pure tests as programs for arm64, in qemu-user; before a release
	@exec e2e/release/emulated

cli: ## the command `weft`, one static file, as target/cli/weft and as plugin of kubectl
	@cargo build --release --locked -p cli --bin weft
	@mkdir -p target/cli
	@cp $(or $(CARGO_TARGET_DIR),target)/x86_64-unknown-linux-gnu/release/weft target/cli/weft
	@e2e/images/command-fits target/cli/weft
	@ln -sf weft target/cli/kubectl-weft
	@echo target/cli/weft

dashboard: ## build the page of `weft dashboard`, use it in a real browser, draw its pictures
	@WEFT_WRITE_GENERATED=1 exec e2e/run dashboard

check: lint deny ## format, lints, licences, pure and in-process tests
	@e2e/run scripts in-process

test: ## what must hold before a change lands, 35 min; leaves the cluster running
	@e2e/run

test-all: ## every test, in parts; goes on where it was ended (PARTS="mesh alone" runs these again)
	@e2e/run --all $(PARTS)

conformance: ## the table of SMI conformance, with real Flagger and Argo Rollouts
	@e2e/conformance/run

gateway-conformance: ## the Gateway API's own conformance suite, for the mesh and for Gateways, 15 min (TEST=HTTPRouteWeight)
	@e2e/gateway_conformance/run $(TEST)

eyes: ## what the mesh reports, compared with a load, a real collector, Prometheus and browser, 15 min
	@e2e/eyes/run

skew: ## an older version and this one beside each other, by upgrade and rollback, 35 min for each (PREVIOUS="commits")
	@PREVIOUS="$(PREVIOUS)" exec e2e/skew/run

drill: ## controllers, nodes, API server, keys and certificates fail around 50 proxies, 40 min; goes on where it was ended (PARTS="leader node")
	@e2e/drill/run $(PARTS)

fuzz: ## property tests with fresh seeds, 10 min (SECONDS=600)
	@e2e/fuzz $(or $(SECONDS),600)

automation: ## 10 000 simulated releases of each kind: how many good ones are rolled back, and bad ones found, 10 min (RUNS=10000)
	@WEFT_AUTOMATION_RUNS=$(or $(RUNS),10000) exec cargo test -p automation --lib -- --nocapture simulation

breaks: ## whether tests notice 60 known breaks of the product, in a copy of it (MESH=1, ONLY="b07 b12", COMPARE=older result.tsv)
	@MESH="$(MESH)" ONLY="$(ONLY)" COMPARE="$(COMPARE)" e2e/breaks/run

mutants: ## whether tests notice 160 mutants of policy, identity and injection, with low priority, over an hour (COMPARE=older result.tsv)
	@COMPARE="$(COMPARE)" e2e/breaks/mutants run

interop: ## clients and servers that we did not write, directly and through the mesh, 20 min; fails when a program is missing (ONLY=row)
	@e2e/interop/run $(if $(ONLY),--only="$(ONLY)",--all --page $(CURDIR)/evidence/interop.md)

field: ## what users of meshes run into, with real programs, beside a namespace without the mesh, 15 min (ONLY="1 4")
	@ONLY="$(ONLY)" exec e2e/field/run

attack: ## hostile neighbours beside an honest load, an hour (MINUTES=60, or 1 for a trial; PREVIOUS=older weft-proxy as control)
	@PREVIOUS="$(PREVIOUS)" PREVIOUS_COMMIT="$(PREVIOUS_COMMIT)" exec e2e/interop/run attack --minutes $(or $(MINUTES),60) --page $(CURDIR)/evidence/attacks.md

attack-control: ## the same against controller and injector, in the demo's cluster, 30 min
	@e2e/interop/run control-plane --page $(CURDIR)/evidence/attacks-control-plane.md

bench: ## what the proxy costs beside Envoy, 31 min after the build (PREVIOUS=older weft-proxy)
	@PREVIOUS="$(PREVIOUS)" exec bench/run full

bench-quick: ## the same in 5 min, with fewer measures
	@PREVIOUS="$(PREVIOUS)" exec bench/run quick

bench-paired: ## whether the proxy costs more than an older one, in turns, an hour; goes on where it was ended (PREVIOUS=older weft-proxy)
	@PREVIOUS="$(PREVIOUS)" exec bench/run paired

bench-eyes: ## what it costs the proxy that single requests are traced and tapped, and go by policies, 39 min
	@bench/run eyes

bench-resilience: ## what callers see when something fails, beside Envoy as Istio sets it up, 42 min
	@bench/run resilience

flame: ## where the proxies spend their time, drawn (MEASURES=cpu-h2,tcp8-cpu)
	@bench/run flame $(if $(MEASURES),--measures="$(MEASURES)")

bench-control: ## what the controller costs with 10 000 pods and 2 000 proxies, 15 min
	@bench/control/run control

scale: ## what 2 000 TrafficTargets and 1 000 HTTPRoutes cost, and how it grows, 15 min
	@bench/control/run scale

shape: ## figures of the project: files, names of tests, words of the manual
	@e2e/shape

fmt: ## format all code
	@cargo fmt --all && gofmt -w e2e/cluster/tools e2e/gateway_conformance

lint: ## what a change must pass before it is read
	@e2e/words && cargo fmt --all --check && cargo clippy --workspace --all-targets -- -D warnings

deny: ## licences, banned crates, sources
	@.ci/deny

proto: ## generate the committed protobuf code anew
	@WEFT_WRITE_GENERATED=1 cargo test -p wire --test generated
