//! Issuers in folders: each replica signs with its own, and no object of the cluster has their keys.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::time::UNIX_EPOCH;

use identity::verify::{Purpose, verify_chain};
use rustls::pki_types::{CertificateDer, UnixTime};
use tempfile::TempDir;

use super::*;
use crate::settings::authority::Directory;

impl Inputs {
    /// The trust bundles of all namespaces hold these roots.
    pub(super) fn bundles_hold(&self, roots: Arc<str>) {
        self.bundles.send_if_modified(|progress| {
            if matches!(progress, Progress::Complete { roots: known, .. } if *known == roots) {
                return false;
            }
            *progress = Progress::Complete {
                roots,
                since: Instant::now(),
            };
            true
        });
    }
}

struct Replica {
    reconciler: Reconciler,
    inputs: Inputs,
    folder: TempDir,
    address: IpAddr,
}

/// Replicas that report to each other; the first one leads.
struct Mesh {
    api: FakeApi,
    replicas: Vec<Replica>,
    /// As they would stand in a Secret.
    keys: Vec<String>,
    start: (SystemTime, Instant),
}

impl Mesh {
    fn of(count: usize) -> Self {
        let mut mesh = Self {
            api: FakeApi::default(),
            replicas: Vec::new(),
            keys: Vec::new(),
            start: (SystemTime::now(), Instant::now()),
        };
        for _ in 0..count {
            mesh.join();
        }
        mesh
    }

    fn join(&mut self) {
        let number = self.replicas.len();
        let folder = tempfile::tempdir().unwrap();
        let (watched, inputs) = watched(AuthoritySettings {
            settle: 10 * SECOND,
            source: IssuerSource::Files,
            directory: Some(Directory {
                path: folder.path().to_owned(),
                roots: None,
            }),
            ..AuthoritySettings::default()
        });
        let cluster = Cluster::default();
        let (model, problems) = cluster.compile();
        let compiled = Compiled::new(Arc::new(cluster.world()), model, problems);
        inputs.latest.send_replace(Some(Arc::new(compiled)));
        self.replicas.push(Replica {
            reconciler: Reconciler {
                watched,
                ..reconciler(&self.api, number == 0)
            },
            inputs,
            folder,
            address: IpAddr::from([10, 0, 0, u8::try_from(number).unwrap()]),
        });
        self.introduce_all();
    }

    fn introduce_all(&self) {
        for one in &self.replicas {
            let others = self.replicas.iter().map(|other| other.address);
            let others = others.filter(|other| *other != one.address).collect();
            one.inputs.observed.follow_replicas(&others);
        }
    }

    fn now(&self) -> SystemTime {
        self.start.0 + self.start.1.elapsed()
    }

    fn root(&self) -> Root {
        Root::generate(self.now(), ROOT_LIFE).unwrap()
    }

    /// Puts a new issuer into a replica's folder, as a kubelet does it.
    fn put(&mut self, at: usize, root: &Root) {
        let issuer = root.issuer(self.now(), ISSUER_LIFE).unwrap();
        let folder = self.replicas[at].folder.path();
        let writing = format!("..{}", fs::read_dir(folder).unwrap().count());
        let written = folder.join(&writing);
        fs::create_dir(&written).unwrap();
        fs::write(written.join("tls.crt"), issuer.cert_pem()).unwrap();
        fs::write(written.join("tls.key"), issuer.key_pem()).unwrap();
        fs::write(written.join("ca.crt"), root.cert_pem()).unwrap();
        symlink(&writing, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        let key = json!(ByteString(issuer.key_pem().into_bytes()));
        self.keys.push(key.as_str().unwrap().to_owned());
    }

    async fn ticks(&self, count: usize) {
        for _ in 0..count {
            for one in &self.replicas {
                one.reconciler.bring(self.now()).await;
                if one.reconciler.step(self.now()).await.is_ok() {
                    let _ = one.reconciler.rotate(self.now()).await;
                }
                let roots = one.reconciler.authority.roots_pem().borrow().clone();
                one.inputs.bundles_hold(roots);
            }
            self.exchange();
            let secret = self.api.read(PATH).unwrap().to_string();
            for key in &self.keys {
                assert!(!secret.contains(key.as_str()), "a folder's key is stored");
            }
            tokio::time::advance(SECOND).await;
        }
    }

    /// A replica without a certificate has no connection to the others.
    fn exchange(&self) {
        let all = self.replicas.iter();
        for from in all.filter(|one| one.reconciler.authority.loaded().is_some()) {
            let others = self.replicas.iter();
            for to in others.filter(|to| to.address != from.address) {
                for news in from.inputs.observed.own_since(0).1 {
                    to.inputs.observed.receive(from.address, news);
                }
            }
        }
    }

    fn state(&self) -> State {
        let loaded = self.replicas[0].reconciler.authority.loaded();
        loaded.unwrap().state.clone()
    }

    fn status(&self) -> Value {
        self.api.read(OBJECT).unwrap()["status"].clone()
    }

    fn usable(&self) -> Value {
        let status = self.status();
        let conditions = status["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|one| one["type"] == "Usable");
        found.unwrap().clone()
    }

    fn leaf_of(&self, at: usize) -> Vec<CertificateDer<'static>> {
        let names = LeafNames {
            spiffe: SpiffeId::of("cluster.local", "shop", "web").unwrap(),
            pod_dns: None,
        };
        let csr = LeafKey::generate().unwrap().csr().unwrap();
        let authority = &self.replicas[at].reconciler.authority;
        let issued = authority.issue(&csr, &names, self.now(), 60 * SECOND);
        issued.unwrap().chain
    }

    fn accepts(&self, at: usize, chain: &[CertificateDer<'_>]) -> bool {
        let roots = self.replicas[at].reconciler.authority.inner.roots.get();
        let now = self.now().duration_since(UNIX_EPOCH).unwrap();
        let now = UnixTime::since_unix_epoch(now);
        verify_chain(roots.unwrap(), chain, now, Purpose::Client).is_ok()
    }

    /// This root alone is trusted, and the Secret has no key but that of the aggregated APIs.
    fn must_be_steady(&self, root: &Root) {
        assert_eq!(self.state().rotation, None);
        for one in &self.replicas {
            let roots = one.reconciler.authority.roots_der();
            assert_eq!(roots, [root.certificate().to_vec()]);
            assert!(can_sign(&one.reconciler, self.now()));
        }
        let secret = self.api.read(PATH).unwrap();
        let names = secret["data"].as_object().unwrap().keys();
        let mut names: Vec<&str> = names.map(String::as_str).collect();
        names.sort_unstable();
        let wanted = [
            "api.crt",
            "api.key",
            "root.crt",
            "rotation.json",
            "trust-domain",
        ];
        assert_eq!(names, wanted);
    }
}

// Claims: trust-3
#[tokio::test(start_paused = true)]
async fn replicas_with_own_issuers_trust_each_others_leaves() {
    let mut mesh = Mesh::of(2);
    let root = mesh.root();
    mesh.put(0, &root);
    mesh.put(1, &root);
    mesh.ticks(60).await;
    mesh.must_be_steady(&root);
    let (first, second) = (mesh.leaf_of(0), mesh.leaf_of(1));
    assert_ne!(first[1], second[1], "each has its own issuer");
    assert!(mesh.accepts(0, &second) && mesh.accepts(1, &first));
    assert_eq!(mesh.state().issuers.len(), 2, "leaves of both are renewed");
    assert_eq!(mesh.status()["source"], "Files");
    assert_eq!(mesh.status()["issuers"].as_array().unwrap().len(), 2);

    // The owner of one renews it below the same root, which needs no phases.
    mesh.put(1, &root);
    mesh.ticks(3).await;
    assert_ne!(mesh.leaf_of(1)[1], second[1]);
    mesh.must_be_steady(&root);
    assert_eq!(mesh.state().issuers.len(), 3, "former leaves are in use");
    let step = mesh.state().step;
    mesh.ticks(20).await;
    assert_eq!(mesh.state().step, step, "nothing is written without news");
}

// Claims: trust-3
#[tokio::test(start_paused = true)]
async fn swapped_folders_rotate_while_former_issuers_sign() {
    let mut mesh = Mesh::of(2);
    let root = mesh.root();
    mesh.put(0, &root);
    mesh.put(1, &root);
    mesh.ticks(60).await;
    mesh.must_be_steady(&root);
    tokio::time::advance(600 * SECOND).await;

    let next = mesh.root();
    mesh.put(0, &next);
    mesh.ticks(40).await;
    assert_eq!(mesh.state().phase(), Some(Phase::Preparing));
    let waits = mesh.status()["proxies"]["waitingFor"].to_string();
    assert!(
        waits.contains("10.0.0.1: its folder has no issuer"),
        "{waits}"
    );
    let by_root = Roots::new(
        &mesh.replicas[0].reconciler.authority.inner.own,
        vec![root.certificate().clone()],
    );
    let now = UnixTime::since_unix_epoch(mesh.now().duration_since(UNIX_EPOCH).unwrap());
    let former = verify_chain(&by_root.unwrap(), &mesh.leaf_of(0), now, Purpose::Client);
    assert!(
        former.is_ok(),
        "the next one is not trusted yet: {former:?}"
    );
    mesh.put(1, &next);
    mesh.ticks(60).await;
    mesh.must_be_steady(&next);
}

#[tokio::test(start_paused = true)]
async fn folder_with_a_lasting_defect_says_why() {
    let mut mesh = Mesh::of(1);
    mesh.ticks(3).await;
    assert_eq!(mesh.usable()["status"], "True", "it may be half written");
    mesh.ticks(6).await;
    let why = mesh.usable();
    assert_eq!(why["reason"], "IssuerRejected");
    let message = why["message"].as_str().unwrap();
    assert!(message.contains("it has no tls.crt"), "{message}");
    assert!(can_sign(&mesh.replicas[0].reconciler, mesh.now()));

    let root = mesh.root();
    mesh.put(0, &root);
    let folder = mesh.replicas[0].folder.path().to_owned();
    fs::write(
        folder.join("..data/ca.crt"),
        "-----BEGIN CERTIFICATE-----\n",
    )
    .unwrap();
    mesh.ticks(8).await;
    let message = mesh.usable()["message"].to_string();
    assert!(
        message.contains("ca.crt holds a certificate that cannot be read"),
        "{message}"
    );

    mesh.put(0, &root);
    mesh.ticks(60).await;
    mesh.must_be_steady(&root);
    fs::remove_dir_all(&folder).unwrap();
    mesh.ticks(10).await;
    let message = mesh.usable()["message"].to_string();
    assert!(message.contains("it does not exist"), "{message}");
    assert!(
        can_sign(&mesh.replicas[0].reconciler, mesh.now()),
        "out of memory"
    );
}

#[tokio::test(start_paused = true)]
async fn replica_with_another_volume_brings_its_root_and_signs() {
    let mut mesh = Mesh::of(1);
    let root = mesh.root();
    mesh.put(0, &root);
    mesh.ticks(60).await;
    mesh.must_be_steady(&root);

    // It is a later pod of the same Deployment, with the volume of another issuer.
    let next = mesh.root();
    mesh.join();
    mesh.put(1, &next);
    mesh.ticks(5).await;
    let later = &mesh.replicas[1].reconciler;
    let refused = later.step(mesh.now()).await.unwrap_err();
    assert!(matches!(refused, CaError::NoOwnIssuer { .. }), "{refused}");
    mesh.ticks(10).await;
    assert_eq!(mesh.state().phase(), Some(Phase::Preparing));
    assert!(!can_sign(&mesh.replicas[1].reconciler, mesh.now()));
    mesh.ticks(20).await;
    assert!(
        mesh.accepts(0, &mesh.leaf_of(1)),
        "its root is trusted by now"
    );
    assert_eq!(mesh.state().phase(), Some(Phase::Preparing));

    mesh.replicas.remove(0);
    mesh.replicas[0].reconciler.leadership = Leadership::fixed(true);
    mesh.introduce_all();
    mesh.ticks(60).await;
    mesh.must_be_steady(&next);
}

#[tokio::test(start_paused = true)]
async fn key_before_its_certificate_is_waited_for() {
    let mut mesh = Mesh::of(1);
    let root = mesh.root();
    mesh.put(0, &root);
    let other = root.issuer(mesh.now(), ISSUER_LIFE).unwrap();
    let key = mesh.replicas[0].folder.path().join("..data/tls.key");
    fs::write(key, other.key_pem()).unwrap();
    mesh.ticks(50).await;
    assert_eq!(mesh.usable()["status"], "True");
    mesh.ticks(20).await;
    let message = mesh.usable()["message"].to_string();
    assert!(message.contains("fits no certificate"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn secret_with_the_same_root_serves_former_releases() {
    let mut mesh = Mesh::of(1);
    let root = mesh.root();
    mesh.put(0, &root);
    mesh.ticks(60).await;
    mesh.must_be_steady(&root);
    let issuer = root.issuer(mesh.now(), ISSUER_LIFE).unwrap();
    mesh.api.put(SOURCE, secret_of(&root, &issuer));
    // An upgrade with the folder still mounted.
    mesh.replicas[0].reconciler.watched.settings.source = IssuerSource::Secret {
        name: "corp-ca".to_owned(),
        roots: None,
    };
    mesh.ticks(3).await;
    assert_eq!(mesh.state().rotation, None, "the root is the same");
    assert_eq!(mesh.status()["source"], "Secret");
    let without_folder = reconciler(&mesh.api, false);
    without_folder.step(mesh.now()).await.unwrap();
    assert!(can_sign(&without_folder, mesh.now()));
}
