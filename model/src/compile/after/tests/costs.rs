//! A change of few pods costs a fraction of compiling a city.

use super::*;

/// A cluster with policies and many more pods than change.
fn city() -> cluster::Cluster {
    const SIZE: usize = 150;
    let mut city = cluster::Cluster::default()
        .with(cluster::namespace("shop"))
        .with(cluster::tcp_route("ports", &[8080]));
    for n in 0..SIZE {
        let (service, account) = (format!("svc-{n}"), format!("account-{n}"));
        let at = |octet: usize| format!("10.{octet}.{}.{}", n / 200, n % 200 + 1);
        let pods: Vec<(String, String)> =
            (1..5).map(|p| (format!("{service}-{p}"), at(p))).collect();
        for (name, ip) in &pods {
            city = city.with(cluster::pod(name, ip, &account));
        }
        let endpoints: Vec<Value> = pods
            .iter()
            .map(|(name, ip)| cluster::endpoint(name, ip))
            .collect();
        let rules = json!([{"kind": "TCPRoute", "name": "ports"}]);
        city = city
            .with(cluster::service(&service, &at(96), &[("http", 80)]))
            .with(cluster::slice(
                &service,
                &service,
                &[("http", 8080)],
                &endpoints,
            ))
            .with(cluster::target(
                &format!("t-{n}"),
                &account,
                &["web"],
                rules,
            ));
    }
    city
}

fn replaced(world: &World, object: &Value) -> Arc<World> {
    let one = cluster::Cluster::default().with(object.clone()).world();
    let mut world = world.clone();
    Arc::make_mut(&mut world.pods).extend((*one.pods).clone());
    Arc::make_mut(&mut world.slices).extend((*one.slices).clone());
    Arc::new(world)
}

/// Time of the fastest of some tries: what it takes when nothing else disturbs.
fn fastest<T>(mut work: impl FnMut() -> T) -> std::time::Duration {
    let tries = (0..5).map(|_| {
        let started = std::time::Instant::now();
        work();
        started.elapsed()
    });
    tries.min().unwrap()
}

// Claims: B8, attack-108
#[test]
fn pod_or_label_change_costs_fraction_of_full_compile() {
    let defaults = Defaults::default();
    let world = Arc::new(city().world());
    let (model, problems) = Model::compile(&world, &defaults);
    let compiled = Compiled::new(world.clone(), model, problems);
    let whole = fastest(|| Model::compile(&world, &defaults));

    let job = cluster::plain_pod("job", "10.200.0.1", "batch");
    let meshed = cluster::pod("svc-7-1", "10.1.0.8", "account-7");
    let labelled = cluster::set(meshed, "/metadata/labels/version", json!("2"));
    let fifth = cluster::pod("svc-7-5", "10.5.0.8", "account-7");
    let gone = {
        let mut world = (*world).clone();
        Arc::make_mut(&mut world.pods).remove(&ObjectKey::new("shop", "svc-3-2"));
        Arc::new(world)
    };
    for (what, next) in [
        ("an unmeshed pod came", replaced(&world, &job)),
        ("a pod changed a label", replaced(&world, &labelled)),
        ("a meshed pod came", replaced(&world, &fifth)),
        ("a pod went", gone),
    ] {
        let after = fastest(|| compiled.after(next.clone(), &defaults));
        assert!(
            after * 3 < whole,
            "{what}: {after:?}, and all anew {whole:?}"
        );
    }

    // Its slice names the new pod: one Service and its pods.
    let next = replaced(&world, &fifth);
    let came = compiled.after(next.clone(), &defaults);
    let mut endpoints: Vec<Value> = (1..5)
        .map(|p| cluster::endpoint(&format!("svc-7-{p}"), &format!("10.{p}.0.8")))
        .collect();
    endpoints.push(cluster::endpoint("svc-7-5", "10.5.0.8"));
    let slice = cluster::slice("svc-7", "svc-7", &[("http", 8080)], &endpoints);
    let joined = replaced(&next, &slice);
    let after = fastest(|| came.after(joined.clone(), &defaults));
    assert!(
        after * 3 < whole,
        "an endpoint joined: {after:?}, and all anew {whole:?}"
    );
    let joined = came.after(joined, &defaults);
    let api = BTreeSet::from(["destination/10.96.0.8:80".to_owned()]);
    let pod = ObjectKey::new("shop", "svc-3-1");
    let resolved = joined.model.resolve(&pod, &api, &Capabilities::default());
    let resolved = cluster::Resolved(resolved.unwrap().resources);
    let at = resolved.addresses("endpoints/shop/svc-7:80");
    assert!(at.contains(&"10.5.0.8:8080".to_owned()), "{at:?}");
}
