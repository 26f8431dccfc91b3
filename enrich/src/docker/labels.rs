//! What Docker's network model says of a container, as labels beside its own: `docker.network`, `docker.endpoint`,
//! `docker.sandbox`, and what its networks are labelled with as `docker.network.label.KEY`.
//!
//! Of several networks each value is there once, with commas between. Identifiers are in Docker's short form.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Prefixes that Docker and its tools keep for themselves.
const RESERVED: &[&str] = &["com.docker.", "io.docker.", "org.dockerproject."];
/// Characters of an identifier, as Docker's command line shows it.
const SHORT: usize = 12;

/// What is told of a network. None of it changes while there is the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) name: String,
    pub(super) driver: String,
    /// Its user's.
    labels: BTreeMap<String, String>,
}

impl Network {
    pub(super) fn new(name: Option<String>, driver: Option<String>, labels: Option<HashMap<String, String>>) -> Self {
        let is_users = |key: &str| !RESERVED.iter().any(|prefix| key.starts_with(prefix));
        let labels = labels.unwrap_or_default().into_iter().filter(|(key, _)| is_users(key)).collect();
        Self { name: name.unwrap_or_default(), driver: driver.unwrap_or_default(), labels }
    }
}

/// A network that a container is in, and its endpoint there.
#[derive(Debug, Clone)]
pub(super) struct Joined {
    pub(super) network: Arc<Network>,
    pub(super) endpoint: Option<Arc<str>>,
}

/// Adds them to a container's own labels.
pub(super) fn add(own: &mut BTreeMap<Arc<str>, Arc<str>>, sandbox: Option<&str>, joined: &[Joined]) {
    let mut joined: Vec<&Joined> = joined.iter().collect();
    joined.sort_by(|a, b| a.network.name.cmp(&b.network.name));
    let mut told: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut tell = |key: String, value| {
        let values = told.entry(key).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    };
    for Joined { network, endpoint } in joined {
        tell("docker.network".into(), network.name.as_str());
        network.labels.iter().for_each(|(key, value)| tell(format!("docker.network.label.{key}"), value));
        if let Some(endpoint) = endpoint.as_deref() {
            tell("docker.endpoint".into(), short(endpoint));
        }
    }
    if let Some(sandbox) = sandbox.filter(|sandbox| !sandbox.is_empty()) {
        tell("docker.sandbox".into(), short(sandbox));
    }
    own.extend(told.into_iter().map(|(key, values)| (key.into(), values.join(",").into())));
}

fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(name: &str, labels: &[(&str, &str)], endpoint: &str) -> Joined {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let network = Arc::new(Network::new(Some(name.into()), Some("bridge".into()), Some(labels)));
        Joined { network, endpoint: Some(endpoint.into()) }
    }

    #[test]
    fn networks_of_a_container_are_labels_beside_its_own() {
        let mut labels = BTreeMap::from([("app".into(), "shop".into()), ("docker.network".into(), "mine".into())]);
        let front = joined("front", &[("tier", "web"), ("com.docker.compose.network", "front")], "0123456789abcdef");
        let back = joined("back", &[("tier", "db"), ("team", "one")], "short");
        add(&mut labels, Some("fedcba9876543210"), &[front, back.clone(), back]);
        let told: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            told,
            [
                "app=shop",
                "docker.endpoint=short,0123456789ab",
                "docker.network=back,front",
                "docker.network.label.team=one",
                "docker.network.label.tier=db,web",
                "docker.sandbox=fedcba987654",
            ]
        );
        let mut nothing = BTreeMap::new();
        add(&mut nothing, Some(""), &[]);
        assert!(nothing.is_empty());
    }
}
