//! Names the workload of a pod as `kubectl rollout restart` takes it, for commands that Weft prints
//! and an administrator pastes.

use serde_json::Value;

use crate::label_syntax::is_object_name;
use crate::labels::POD_TEMPLATE_HASH;

/// What owns a pod, and the label by which a Deployment names its ReplicaSets.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    pub template_hash: Option<&'a str>,
}

impl<'a> Owner<'a> {
    /// Of a pod as JSON: the owner that controls it.
    #[must_use]
    pub fn of(pod: &'a Value) -> Option<Self> {
        let metadata = &pod["metadata"];
        let mut owners = metadata["ownerReferences"].as_array()?.iter();
        let owner = owners.find(|owner| owner["controller"] == true)?;
        Some(Self {
            api_version: owner["apiVersion"].as_str()?,
            kind: owner["kind"].as_str()?,
            name: owner["name"].as_str()?,
            template_hash: metadata["labels"][POD_TEMPLATE_HASH].as_str(),
        })
    }

    /// `deployment/web` and the like, if `kubectl rollout restart` can restart it.
    #[must_use]
    pub fn restartable(&self) -> Option<String> {
        // A kind that others define may have such a name. And a client that may create pods
        // chooses the names of owners: the API server takes any text, a command's end too.
        if self.api_version != "apps/v1" || !is_object_name(self.name) {
            return None;
        }
        match self.kind {
            "StatefulSet" => Some(format!("statefulset/{}", self.name)),
            "DaemonSet" => Some(format!("daemonset/{}", self.name)),
            "ReplicaSet" => {
                let deployment = self.name.strip_suffix(self.template_hash?)?;
                let deployment = deployment.strip_suffix('-')?;
                is_object_name(deployment).then(|| format!("deployment/{deployment}"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner<'a>(kind: &'a str, name: &'a str) -> Owner<'a> {
        Owner {
            api_version: "apps/v1",
            kind,
            name,
            template_hash: Some("7f9"),
        }
    }

    #[test]
    fn owners_that_kubectl_restarts_are_named() {
        for (kind, name, named) in [
            ("ReplicaSet", "web-7f9", Some("deployment/web")),
            ("ReplicaSet", "web-8a0", None),
            ("StatefulSet", "db.v2", Some("statefulset/db.v2")),
            ("DaemonSet", "agent", Some("daemonset/agent")),
            ("Job", "task", None),
        ] {
            let restartable = owner(kind, name).restartable();
            assert_eq!(restartable.as_deref(), named, "{kind} {name}");
        }
        let other = Owner {
            api_version: "apps.example/v1",
            ..owner("StatefulSet", "db")
        };
        assert_eq!(other.restartable(), None);
    }

    #[test]
    fn forged_owner_names_reach_no_command() {
        for name in [
            "db; id",
            "$(id)",
            "-all",
            "db\n  kubectl delete ns shop",
            "--all-7f9",
            "-7f9",
        ] {
            for kind in ["StatefulSet", "DaemonSet", "ReplicaSet"] {
                assert_eq!(owner(kind, name).restartable(), None, "{kind} {name}");
            }
        }
    }
}
