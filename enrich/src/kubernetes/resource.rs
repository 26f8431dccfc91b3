//! What is listed and watched, and where the API server has it.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::client::{Failure, parse};
use super::owners::OwnerKind;
use super::state::{Kind, Object};

/// A resource of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Resource {
    Pods,
    Nodes,
    Services,
    Slices,
    /// Before Kubernetes 1.21.
    SlicesBeta,
    /// Before 1.17, or where slices are switched off.
    Endpoints,
    ReplicaSets,
    Jobs,
    Namespaces,
}

impl Resource {
    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::Pods => Kind::Pods,
            Self::Nodes => Kind::Nodes,
            Self::Services => Kind::Services,
            Self::Slices | Self::SlicesBeta | Self::Endpoints => Kind::Endpoints,
            Self::ReplicaSets => Kind::Owners(OwnerKind::ReplicaSet),
            Self::Jobs => Kind::Owners(OwnerKind::Job),
            Self::Namespaces => Kind::Namespaces,
        }
    }

    /// Where all of them are.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Pods => "/api/v1/pods",
            Self::Nodes => "/api/v1/nodes",
            Self::Services => "/api/v1/services",
            Self::Slices => "/apis/discovery.k8s.io/v1/endpointslices",
            Self::SlicesBeta => "/apis/discovery.k8s.io/v1beta1/endpointslices",
            Self::Endpoints => "/api/v1/endpoints",
            Self::ReplicaSets => "/apis/apps/v1/replicasets",
            Self::Jobs => "/apis/batch/v1/jobs",
            Self::Namespaces => "/api/v1/namespaces",
        }
    }

    /// API group, as permissions name it.
    pub(super) const fn group(self) -> &'static str {
        match self {
            Self::Pods | Self::Nodes | Self::Services | Self::Endpoints | Self::Namespaces => "",
            Self::Slices | Self::SlicesBeta => "discovery.k8s.io",
            Self::ReplicaSets => "apps",
            Self::Jobs => "batch",
        }
    }

    /// Name in the API, and in permissions.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Nodes => "nodes",
            Self::Services => "services",
            Self::Slices | Self::SlicesBeta => "endpointslices",
            Self::Endpoints => "endpoints",
            Self::ReplicaSets => "replicasets",
            Self::Jobs => "jobs",
            Self::Namespaces => "namespaces",
        }
    }

    /// Whether only metadata are asked for.
    pub(super) const fn is_bare(self) -> bool {
        match self {
            Self::ReplicaSets | Self::Jobs | Self::Namespaces => true,
            Self::Pods | Self::Nodes | Self::Services | Self::Slices | Self::SlicesBeta | Self::Endpoints => false,
        }
    }

    /// Parses one object.
    pub(super) fn object(self, text: &str) -> Result<Object, Failure> {
        let bytes = text.as_bytes();
        Ok(match self {
            Self::Pods => Object::Pod(Box::new(parse(bytes)?)),
            Self::Nodes => Object::Node(parse(bytes)?),
            Self::Services => Object::Service(parse(bytes)?),
            Self::Slices | Self::SlicesBeta => Object::Slice(parse(bytes)?),
            Self::Endpoints => Object::Endpoints(parse(bytes)?),
            Self::ReplicaSets => Object::Owner(OwnerKind::ReplicaSet, parse(bytes)?),
            Self::Jobs => Object::Owner(OwnerKind::Job, parse(bytes)?),
            Self::Namespaces => Object::Namespace(parse(bytes)?),
        })
    }
}

/// Where an owner is.
pub(super) fn path_of_owner(kind: OwnerKind, namespace: &str) -> String {
    match kind {
        OwnerKind::ReplicaSet => format!("/apis/apps/v1/namespaces/{namespace}/replicasets"),
        OwnerKind::Job => format!("/apis/batch/v1/namespaces/{namespace}/jobs"),
    }
}

/// A page of a list. One object that is not as it should be does not take the others with it.
#[derive(Debug, Deserialize)]
pub(super) struct Page<'a> {
    #[serde(default)]
    pub(super) metadata: ListMeta,
    #[serde(borrow, default)]
    pub(super) items: Option<Vec<&'a RawValue>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListMeta {
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) more: Option<String>,
}

/// A line of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct Line<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'a str,
    #[serde(borrow)]
    pub(super) object: &'a RawValue,
}

/// What every object of a watch has.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Versioned {
    pub(super) metadata: ListMeta,
}

/// Which object it is, of one that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// Empty if even that cannot be read.
    pub(super) uid: Arc<str>,
    /// With its namespace, if it has one.
    pub(super) name: String,
}

impl Named {
    /// Reads of an object no more than that.
    pub(super) fn of(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        let part = |name: &str| value["metadata"][name].as_str();
        let name = match (part("namespace"), part("name")) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            (_, name) => name.unwrap_or("without a name").to_owned(),
        };
        Self { uid: part("uid").unwrap_or_default().into(), name }
    }
}

/// The object of an error.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Problem {
    pub(super) code: u16,
    pub(super) message: String,
}
