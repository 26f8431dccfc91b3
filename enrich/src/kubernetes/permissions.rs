//! What wiretag may do at the API server, and what it misses: asked by SelfSubjectAccessReviews, which everybody may ask.

use std::fmt;

use serde::Deserialize;
use serde_json::json;

use super::client::Connector;
use super::resource::Resource;
use super::source::{KubernetesConfig, Scope};

/// What is allowed, of what the scope needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// Resources, with the verbs that are missing.
    pub missing: Vec<(String, Vec<&'static str>)>,
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.missing.iter().map(|(resource, verbs)| format!("{} on {resource}", verbs.join(", ")));
        f.write_str(&parts.collect::<Vec<_>>().join("; "))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Review {
    status: ReviewStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReviewStatus {
    allowed: bool,
}

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// Asks the API server; an error says why it does not answer.
pub async fn check(config: &KubernetesConfig) -> Result<Permissions, String> {
    let connector = Connector::new(config.kubeconfig.clone());
    let mut missing = Vec::new();
    for (resource, verbs) in needed(config.scope) {
        let mut refused = Vec::new();
        for verb in verbs {
            let attributes = json!({ "group": resource.group(), "resource": resource.name(), "verb": verb });
            let review = json!({
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": { "resourceAttributes": attributes },
            });
            let review: Review = connector
                .create(REVIEWS, review.to_string().into_bytes())
                .await
                .map_err(|failure| failure.to_string())?;
            if !review.status.allowed {
                refused.push(*verb);
            }
        }
        if !refused.is_empty() {
            let group = if resource.group().is_empty() { String::new() } else { format!(".{}", resource.group()) };
            missing.push((format!("{}{group}", resource.name()), refused));
        }
    }
    Ok(Permissions { missing })
}

/// Verbs that a scope needs; `deploy/kubernetes/` grants exactly these.
fn needed(scope: Scope) -> Vec<(Resource, &'static [&'static str])> {
    let watched = scope.resources().iter().filter_map(|forms| forms.first().copied());
    let mut needed: Vec<(Resource, &'static [&'static str])> =
        watched.map(|resource| (resource, ["list", "watch"].as_slice())).collect();
    match scope {
        Scope::Node => {
            needed.extend([(Resource::ReplicaSets, ["get"].as_slice()), (Resource::Jobs, ["get"].as_slice())]);
        }
        Scope::Cluster => {}
    }
    needed
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Rule {
        api_groups: Vec<String>,
        resources: Vec<String>,
        verbs: Vec<String>,
    }

    type Grant = (String, String, String);

    fn granted(role: &str) -> BTreeSet<Grant> {
        let text = include_str!("../../../deploy/kubernetes/rbac.yaml");
        let documents =
            text.split("\n---\n").map(|text| serde_norway::from_str::<serde_norway::Value>(text).expect("YAML"));
        let role = documents.into_iter().find(|own| own["metadata"]["name"] == role).expect("the role");
        let rules: Vec<Rule> = serde_norway::from_value(role["rules"].clone()).expect("rules");
        let mut grants = BTreeSet::new();
        for Rule { api_groups, resources, verbs } in &rules {
            for (group, resource) in api_groups.iter().flat_map(|group| resources.iter().map(move |own| (group, own))) {
                grants.extend(verbs.iter().map(|verb| (group.clone(), resource.clone(), verb.clone())));
            }
        }
        grants
    }

    #[test]
    fn the_roles_that_are_shipped_grant_exactly_what_is_needed() {
        for (scope, role) in [(Scope::Cluster, "wiretag-cluster"), (Scope::Node, "wiretag-node")] {
            let grant = |resource: Resource, verb: &str| {
                (resource.group().to_owned(), resource.name().to_owned(), verb.to_owned())
            };
            let needed =
                needed(scope).into_iter().flat_map(|(own, verbs)| verbs.iter().map(move |verb| grant(own, verb)));
            assert_eq!(needed.collect::<BTreeSet<_>>(), granted(role), "{role}");
        }
    }
}
