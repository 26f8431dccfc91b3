//! The table `identities`: what each source said, by key and time. It is built when it is asked for.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, MapBuilder, MapFieldNames, RecordBatch, StringArray, StringBuilder,
    TimestampNanosecondArray,
};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use wiretag_capture::{Protocol, Value};
use wiretag_enrich::timeline::View;
use wiretag_enrich::timeline::query::{Known, Query};
use wiretag_enrich::{Identity, Key};

/// See the module.
pub(super) struct Identities {
    view: Arc<View>,
    schema: SchemaRef,
}

impl Identities {
    pub(super) fn new(view: Arc<View>) -> Result<Self> {
        Ok(Self { view, schema: batch(&[])?.schema() })
    }
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identities")
    }
}

#[async_trait]
impl TableProvider for Identities {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let view = self.view.clone();
        // It looks through all that is known.
        let built = tokio::task::spawn_blocking(move || batch(&view.query(&Query::default())));
        let batch = built.await.map_err(|error| datafusion::error::DataFusionError::External(error.into()))??;
        MemTable::try_new(batch.schema(), vec![vec![batch]])?.scan(state, projection, filters, limit).await
    }
}

/// A key in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyText {
    /// `interface`, `mac`, `ip`, `range`, `socket` or `service`; `namespace` of one that shares a network namespace with others,
    /// `host address` of an address at which sockets tell who it is.
    pub kind: &'static str,
    /// The key itself.
    pub key: String,
    /// Where it holds; none: anywhere.
    pub network: Option<String>,
    /// The boot that the number of an interface, or a socket, belongs to.
    pub boot: Option<String>,
}

/// A key in the words of every interface.
pub fn key_text(key: &Key) -> KeyText {
    let (kind, text, network) = match key {
        Key::Interface { index, netns: 0, .. } => ("interface", index.to_string(), None),
        Key::Interface { index, netns, .. } => ("interface", format!("{index}@{netns}"), None),
        Key::Mac { network, mac } => ("mac", Value::mac_text(*mac), Some(network)),
        Key::Ip { network, ip } => ("ip", ip.to_string(), Some(network)),
        Key::Range { network, ip, prefix } => ("range", format!("{ip}/{prefix}"), Some(network)),
        // Marks of the kernel's source: who shares a namespace, and which addresses are the host's.
        Key::Socket { netns, protocol: 0, ip: None, port, .. } => {
            ("namespace", format!("netns {netns} member {port}"), None)
        }
        Key::Socket { protocol: 0, ip: Some(ip), port: 0, .. } => ("host address", ip.to_string(), None),
        Key::Socket { protocol, ip, port, .. } => {
            let ip = ip.map_or_else(|| "*".to_owned(), |ip| ip.to_string());
            ("socket", format!("{}/{ip}:{port}", Protocol(*protocol).name()), None)
        }
        Key::Service { network, protocol, ip, port } => {
            ("service", format!("{}/{ip}:{port}", Protocol(*protocol).name()), Some(network))
        }
    };
    let boot = match key {
        Key::Interface { boot, .. } | Key::Socket { boot, .. } => Some(boot.to_string()),
        Key::Mac { .. } | Key::Ip { .. } | Key::Range { .. } | Key::Service { .. } => None,
    };
    let network = network.filter(|network| !network.is_empty()).map(ToString::to_string);
    KeyText { kind, key: text, network, boot }
}

/// Reads one attribute.
type Attribute = fn(&Identity) -> Option<&str>;

fn batch(known: &[Known]) -> Result<RecordBatch> {
    let keys: Vec<KeyText> = known.iter().map(|known| key_text(&known.interval.key)).collect();
    let times = |time: fn(&Known) -> Option<i64>| {
        let times: TimestampNanosecondArray = known.iter().map(time).collect();
        Arc::new(times.with_timezone("UTC")) as ArrayRef
    };
    let texts =
        |text: fn(&Known) -> Option<&str>| Arc::new(known.iter().map(text).collect::<StringArray>()) as ArrayRef;
    let of_key =
        |text: fn(&KeyText) -> Option<&str>| Arc::new(keys.iter().map(text).collect::<StringArray>()) as ArrayRef;
    let covered: BooleanArray = known.iter().map(|known| Some(known.covered)).collect();
    let mut columns = vec![
        ("key_kind", of_key(|key| Some(key.kind))),
        ("key", of_key(|key| Some(&key.key))),
        ("network", of_key(|key| key.network.as_deref())),
        ("boot", of_key(|key| key.boot.as_deref())),
        ("valid_from", times(|known| Some(known.interval.valid_from))),
        ("valid_to", times(|known| known.interval.valid_to)),
        ("ending", texts(|known| Some(known.ending))),
        ("source", texts(|known| Some(&known.interval.source))),
        ("learned_at", times(|known| Some(known.interval.learned_at))),
        ("told_as", texts(|known| known.told_as.as_deref())),
        ("covered", Arc::new(covered) as ArrayRef),
    ];
    let attributes: [(&str, Attribute); 11] = [
        ("identity", |identity| Some(&identity.identity)),
        ("cluster", |identity| identity.cluster.as_deref()),
        ("host", |identity| identity.host.as_deref()),
        ("namespace", |identity| identity.namespace.as_deref()),
        ("pod", |identity| identity.pod.as_deref()),
        ("container", |identity| identity.container.as_deref()),
        ("workload", |identity| identity.workload.as_deref()),
        ("workload_kind", |identity| identity.workload_kind.as_deref()),
        ("service", |identity| identity.service.as_deref()),
        ("image", |identity| identity.image.as_deref()),
        ("zone", |identity| identity.zone.as_deref()),
    ];
    for (name, attribute) in attributes {
        let values: StringArray = known.iter().map(|known| attribute(&known.interval.identity)).collect();
        columns.push((name, Arc::new(values)));
    }
    columns.push(("labels", labels(known)?));
    let nullable = columns.into_iter().map(|(name, array)| (name, array, true));
    Ok(RecordBatch::try_from_iter_with_nullable(nullable)?)
}

fn labels(known: &[Known]) -> Result<ArrayRef> {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for known in known {
        for (key, value) in &known.interval.identity.labels {
            builder.keys().append_value(key);
            builder.values().append_value(value);
        }
        builder.append(true)?;
    }
    Ok(Arc::new(builder.finish()))
}

#[cfg(test)]
mod tests {
    use wiretag_enrich::Key;

    use super::key_text;

    #[test]
    fn marks_of_the_kernel_s_source_are_not_shown_as_sockets() {
        let ip = Some("10.0.0.7".parse().expect("an address"));
        for (netns, protocol, ip, port, kind, text) in [
            (4_026_531_840, 0, None, 3, "namespace", "netns 4026531840 member 3"),
            (0, 0, ip, 0, "host address", "10.0.0.7"),
            (0, 6, ip, 443, "socket", "tcp/10.0.0.7:443"),
            (4_026_531_840, 17, None, 53, "socket", "udp/*:53"),
        ] {
            let shown = key_text(&Key::Socket { netns, boot: "boot".into(), protocol, ip, port });
            assert_eq!((shown.kind, &*shown.key, shown.boot.as_deref()), (kind, text, Some("boot")));
        }
    }
}
