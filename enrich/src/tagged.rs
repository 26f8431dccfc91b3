//! Flow records and transactions with both ends named, and the identity columns that the names add to the vocabulary.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use wiretag_capture::{Column, FlowRecord, Kind, Transaction, Value, Values, columns, transaction};

use crate::identity::Identity;

/// How an end got its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaggedBy {
    /// Its own interface carried the packets.
    Interface,
    /// The socket that it owned.
    Socket,
    /// Its link-layer address.
    Mac,
    /// Its IP address in the network.
    Ip,
    /// The address of a service, of which the container behind it is not known.
    Service,
    /// The static file.
    Static,
    /// Several identities had the key in the tolerance: no name.
    Ambiguous,
    /// Nobody known had it.
    None,
}

impl TaggedBy {
    /// Every way.
    pub const ALL: &[Self] =
        &[Self::Interface, Self::Socket, Self::Mac, Self::Ip, Self::Service, Self::Static, Self::Ambiguous, Self::None];

    /// The spelling in every interface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Socket => "socket",
            Self::Mac => "mac",
            Self::Ip => "ip",
            Self::Service => "service",
            Self::Static => "static",
            Self::Ambiguous => "ambiguous",
            Self::None => "none",
        }
    }
}

/// The name of one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndTag {
    /// Who it was; `None` for [`TaggedBy::Ambiguous`] and [`TaggedBy::None`].
    pub identity: Option<Arc<Identity>>,
    /// How it was found.
    pub tagged_by: TaggedBy,
    /// The end's address on the other side of a translation.
    pub translated: Option<SocketAddr>,
}

impl EndTag {
    /// Nobody known.
    pub const NONE: Self = Self { identity: None, tagged_by: TaggedBy::None, translated: None };
}

/// A row before its ends are named: a flow record or a transaction.
pub trait Record: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// Its columns, in the order of output.
    fn columns() -> impl Iterator<Item = &'static Column<Self>>;
}

impl Record for FlowRecord {
    fn columns() -> impl Iterator<Item = &'static Column<Self>> {
        columns::columns()
    }
}

impl Record for Transaction {
    fn columns() -> impl Iterator<Item = &'static Column<Self>> {
        transaction::columns()
    }
}

/// What the tagger hands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged<R> {
    /// The row, with `observed_at` and `primary` decided.
    pub record: R,
    /// Client's name.
    pub client: EndTag,
    /// Server's name.
    pub server: EndTag,
}

/// A slice of a flow with both ends named.
pub type TaggedFlow = Tagged<FlowRecord>;
/// A transaction with both ends named.
pub type TaggedTransaction = Tagged<Transaction>;

/// One identity column, as [`Column`] over the names of the two ends.
#[derive(Debug, Clone, Copy)]
pub struct IdentityColumn {
    /// Name in every interface.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Definition, one sentence.
    pub doc: &'static str,
    /// Reads it from the client's name and the server's.
    pub get: for<'a> fn(&'a EndTag, &'a EndTag) -> Value<'a>,
    /// Reads it from many.
    pub all: for<'a> fn(&[Ends<'a>]) -> Values<'a>,
}

/// The client's name and the server's.
pub type Ends<'a> = (&'a EndTag, &'a EndTag);

fn text(value: Option<&Arc<str>>) -> Value<'_> {
    value.map_or(Value::Null, |text| Value::Text(Cow::Borrowed(text)))
}

fn labels(tag: &EndTag) -> Value<'_> {
    match tag.identity.as_deref() {
        Some(identity) if !identity.labels.is_empty() => {
            Value::Map(identity.labels.iter().map(|(key, value)| (&**key, &**value)).collect())
        }
        Some(_) | None => Value::Null,
    }
}

macro_rules! ends {
    ($name:literal, $kind:ident, $doc:literal, |$tag:ident| $get:expr) => {
        [
            IdentityColumn {
                name: concat!("client_", $name),
                kind: Kind::$kind,
                doc: concat!($doc, " (client)."),
                get: |$tag, _| $get,
                all: |ends| Values::of(Kind::$kind, ends.iter().map(|($tag, _)| $get)),
            },
            IdentityColumn {
                name: concat!("server_", $name),
                kind: Kind::$kind,
                doc: concat!($doc, " (server)."),
                get: |_, $tag| $get,
                all: |ends| Values::of(Kind::$kind, ends.iter().map(|(_, $tag)| $get)),
            },
        ]
    };
}

macro_rules! attribute {
    ($name:literal, $field:ident, $doc:literal) => {
        ends!($name, Text, $doc, |tag| text(tag.identity.as_deref().and_then(|identity| identity.$field.as_ref())))
    };
}

/// Identity columns, in the order of output, after those of the record.
pub const IDENTITY_COLUMNS: &[[IdentityColumn; 2]] = &[
    attribute!("cluster", cluster, "Cluster"),
    attribute!("host", host, "Node that ran it"),
    attribute!("namespace", namespace, "Kubernetes namespace"),
    attribute!("pod", pod, "Pod name"),
    attribute!("container", container, "Container name"),
    attribute!("workload", workload, "Owner: deployment, compose project/service"),
    attribute!("workload_kind", workload_kind, "Kind of owner"),
    attribute!("service", service, "Service"),
    attribute!("image", image, "Image reference"),
    attribute!("zone", zone, "Zone"),
    ends!("labels", Map, "Labels at that time", |tag| labels(tag)),
    ends!("identity", Text, "Pod UID or container id: the key that never changes", |tag| text(
        tag.identity.as_deref().map(|identity| &identity.identity)
    )),
    ends!(
        "tagged_by",
        Word,
        "How the name was found: interface, socket, mac, ip, service, static, ambiguous, none",
        |tag| Value::Text(tag.tagged_by.as_str().into())
    ),
    ends!(
        "nat_ip",
        Ip,
        "Address on the other side of a translation: published port, service address, masquerade",
        |tag| { tag.translated.map_or(Value::Null, |end| Value::Ip(end.ip())) }
    ),
    ends!("nat_port", Number, "Port on the other side of a translation", |tag| {
        tag.translated.map_or(Value::Null, |end| Value::Number(end.port().into()))
    }),
];

/// A column of the whole vocabulary of a table.
#[derive(Debug)]
pub enum AnyColumn<R: 'static> {
    /// Of the record.
    Record(&'static Column<R>),
    /// Of the identities.
    Identity(&'static IdentityColumn),
}

// Derived, these would want `R` to be copied too.
impl<R> Copy for AnyColumn<R> {}

impl<R> Clone for AnyColumn<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: Record> AnyColumn<R> {
    /// Name in every interface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Record(column) => column.name,
            Self::Identity(column) => column.name,
        }
    }

    /// What it holds.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Record(column) => column.kind,
            Self::Identity(column) => column.kind,
        }
    }

    /// Definition.
    pub const fn doc(self) -> &'static str {
        match self {
            Self::Record(column) => column.doc,
            Self::Identity(column) => column.doc,
        }
    }

    /// The value in `row`.
    pub fn get(self, row: &Tagged<R>) -> Value<'_> {
        match self {
            Self::Record(column) => (column.get)(&row.record),
            Self::Identity(column) => (column.get)(&row.client, &row.server),
        }
    }
}

/// Every column of a table, in the order of output.
pub fn all_columns<R: Record>() -> impl Iterator<Item = AnyColumn<R>> {
    let identity = IDENTITY_COLUMNS.as_flattened().iter();
    R::columns().map(AnyColumn::Record).chain(identity.map(AnyColumn::Identity))
}
