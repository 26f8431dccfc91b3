//! Everything that there is, at the beginning of a connection.
//!
//! Of a container about which Docker does not answer what was known stays, and its task asks again.

use std::collections::HashMap;
use std::sync::Arc;

use bollard::query_parameters::ListContainersOptionsBuilder;
use futures_util::{StreamExt, stream};

use super::container::Container;
use super::context::{Answer, Context};
use super::labels::Network;
use super::{ANSWER, in_time, inspect, now};
use crate::event::{IdentityEvent, Snapshot, Stopped};

/// Containers that are looked at at a time.
const AT_A_TIME: usize = 16;

/// What one look at a container gave.
enum Seen {
    Running(Box<Container>, Arc<str>, i64),
    Stopped(Stopped),
    Unclear(Arc<str>),
}

/// What there is.
pub(super) struct Listed {
    /// Containers that run, by id.
    pub(super) known: HashMap<String, Container>,
    /// Ids of those about which there was no answer.
    pub(super) unclear: Vec<Arc<str>>,
    /// Until when what was known of them before is sure.
    pub(super) heard: i64,
}

/// Tells all that holds.
pub(super) async fn list(context: &Arc<Context>, heard: Option<i64>) -> Result<Listed, bollard::errors::Error> {
    let at = now();
    for network in in_time(ANSWER, context.docker.list_networks(None)).await? {
        let (Some(id), Some(driver)) = (network.id, network.driver) else { continue };
        let id = id.into();
        context.remember(&id, Network::new(network.name, Some(driver), network.labels));
        context.announce(&id, network.options.as_ref()).await;
    }
    let options = ListContainersOptionsBuilder::default().all(true).build();
    let listed = in_time(ANSWER, context.docker.list_containers(Some(options))).await?;
    let looks = listed.into_iter().filter_map(|container| container.id).map(|id| look(context, id));
    let seen: Vec<Seen> =
        stream::iter(looks).buffer_unordered(AT_A_TIME).filter_map(std::future::ready).collect().await;

    let (mut known, mut runs) = (HashMap::new(), HashMap::new());
    let (mut present, mut stopped, mut unclear) = (Vec::new(), Vec::new(), Vec::new());
    for seen in seen {
        match seen {
            Seen::Running(mut container, id, run) => {
                container.tell_networks().await;
                present.extend(container.intervals());
                runs.insert(id.clone(), Some(run));
                known.insert(id.to_string(), *container);
            }
            Seen::Stopped(own) => stopped.push(own),
            Seen::Unclear(id) => {
                runs.insert(id.clone(), None);
                unclear.push(id);
            }
        }
    }
    context.namespaces.retain(context, &runs, heard.unwrap_or(at)).await;
    let source = "docker".into();
    let snapshot = Snapshot { source, present, stopped, unclear: unclear.clone(), heard, at };
    context.send(IdentityEvent::Reconciled(snapshot)).await;
    Ok(Listed { known, unclear, heard: heard.unwrap_or(at) })
}

/// A container that goes away meanwhile is told by the event stream.
async fn look(context: &Arc<Context>, id: String) -> Option<Seen> {
    let found = match context.inspect(&id).await {
        Answer::Found(found) => found,
        Answer::Gone => return None,
        Answer::Missing => return Some(Seen::Unclear(id.into())),
    };
    let id: Arc<str> = id.into();
    let from = inspect::started_at(&found)?;
    if inspect::is_running(&found) {
        let mut container = Container::new(context.clone(), id.clone());
        if container.take(&found, from) {
            container.look(&found).await;
        } else {
            container.describe(from).await;
        }
        return Some(Seen::Running(Box::new(container), id, from));
    }
    Some(Seen::Stopped(Stopped { identity: id, from, to: inspect::finished_at(&found)? }))
}
