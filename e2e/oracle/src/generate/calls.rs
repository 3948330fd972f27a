//! Random calls: half of them are derived from a target, else almost all would be
//! refused for the caller alone.

use serde_json::Value;

use super::vocabulary::Vocabulary;
use crate::{
    Call, Caller, Request, Traffic, World,
    object::{list, name, namespace, spec},
    random::Random,
};

const PATHS: [&str; 28] = [
    "/api",
    "/api/",
    "/api/v1",
    "/apiary",
    "/a",
    "/b",
    "/web/42",
    "/admin",
    "/ADMIN",
    "/",
    "/web",
    "/x/v1",
    "/doc.html",
    "/api/x",
    "//api",
    "/x/../api",
    "/%61pi",
    "/api%2Fx",
    "/api/..;x/admin",
    "/api\\v1",
    "/./admin",
    "/%2e%2e/api",
    "/api/%c0%ae",
    "/api%",
    "/api%3f",
    "/Ädmin",
    "/%C3%84",
    "/..",
];
/// How many of the paths are in the form that is judged.
const PLAIN_PATHS: usize = 14;
const METHODS: [&str; 6] = ["GET", "GET", "POST", "PUT", "PATCH", "get"];
const HEADERS: [(&str, &[u8]); 12] = [
    ("x-role", b"admin"),
    ("x-role", b"user"),
    ("X-ROLE", b"admins"),
    ("cookie", b"user=a"),
    ("cookie", b"b=c"),
    ("user-agent", b"an Android phone"),
    ("x-many", b"aaa"),
    ("x-many", b"b"),
    ("x-role", b"\xff"),
    ("cookie", b"\xfe"),
    ("x-role", b""),
    ("x-other", b"1"),
];

impl World {
    /// A call to one of the world's pods. Of a few calls one that is allowed is
    /// preferred now and then, since most random calls are not.
    pub fn random_call(&self, random: &mut Random, vocabulary: &Vocabulary) -> Call {
        const TRIES: usize = 6;
        let mut call = self.any_call(random, vocabulary);
        if random.percent(40) {
            for _ in 0..TRIES {
                let guarded = self.callee(&call).is_some_and(|pod| self.is_guarded(pod));
                if guarded && self.allows(&call) {
                    break;
                }
                call = self.any_call(random, vocabulary);
            }
        }
        call
    }

    fn any_call(&self, random: &mut Random, vocabulary: &Vocabulary) -> Call {
        let pods: Vec<&Value> = self.all("Pod").collect();
        let mut to = pods[random.below(pods.len())];
        let mut caller = if random.percent(15) {
            Caller::Outside
        } else {
            pod_caller(pods[random.below(pods.len())])
        };
        let targets: Vec<&Value> = self.all("TrafficTarget").collect();
        if !targets.is_empty() && random.percent(85) {
            let target = random.of(&targets);
            let wanted = |pod: &&&Value| self.names(target, pod);
            let there: Vec<&&Value> = pods.iter().filter(wanted).collect();
            if !there.is_empty() {
                to = there[random.below(there.len())];
            }
            let sources = list(&spec(target)["sources"]);
            if !sources.is_empty() && random.percent(70) {
                let source = &sources[random.below(sources.len())];
                let mut known: Vec<Caller> = pods.iter().map(|pod| pod_caller(pod)).collect();
                known.push(Caller::Outside);
                known.retain(|caller| self.source_means(source, namespace(target), caller));
                if !known.is_empty() {
                    caller = random.of(&known);
                }
            }
        }
        let traffic = if random.percent(20) {
            Traffic::Bytes
        } else {
            Traffic::Http(request(random))
        };
        let port = if random.percent(60) {
            vocabulary.ports[0]
        } else {
            random.of(vocabulary.ports)
        };
        Call {
            caller,
            namespace: namespace(to).to_owned(),
            pod: name(to).to_owned(),
            port,
            traffic,
        }
    }
}

fn pod_caller(pod: &Value) -> Caller {
    Caller::Pod {
        namespace: namespace(pod).to_owned(),
        name: name(pod).to_owned(),
    }
}

/// A request as a client might send it.
pub fn request(random: &mut Random) -> Request {
    let mut headers = vec![(
        "host".to_owned(),
        random
            .pick(&["api", "api.shop", "other"])
            .as_bytes()
            .to_vec(),
    )];
    for _ in 0..random.below(4) {
        let (name, value) = random.of(&HEADERS);
        headers.push((name.to_owned(), value.to_vec()));
    }
    let path = if random.percent(75) {
        random.pick(&PATHS[..PLAIN_PATHS])
    } else {
        random.pick(&PATHS)
    };
    Request {
        method: random.pick(&METHODS).to_owned(),
        path: path.to_owned(),
        headers,
    }
}
