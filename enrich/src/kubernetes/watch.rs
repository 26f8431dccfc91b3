//! One resource: listed in pages, then watched from the version of the list on, for ever.
//!
//! * A watch that ends is taken up where it was, without a new list; only 410 (the server has forgotten that version) makes a
//!   new list, and the time since the watch was last heard is a gap.
//! * What comes after a gap, an interruption or a standstill of this host happened at some time in it: such events say until
//!   when the opposite was sure ([`When`]). A watch is up to date again once nothing is left to be read: once reading has to wait. What was
//!   missed comes at once, so the longer a watch is read, the shorter a pause is enough ([`pause_of_one_behind`]); in a large cluster
//!   there are no long ones. One that goes on at once has missed nothing.
//! * Each request has an end: a page that does not come, and a watch whose server is silently gone.
//! * A watch that ends or fails within its first moments is as good as none: it is asked for again with growing pauses, and works again once
//!   it has lasted. One that ended after that goes on at once.
//! * Where the server lacks the usual form of a resource, an older one is watched, and whenever that watch ends the better ones are
//!   asked for again: a server that is only starting, or was upgraded, does not stay with less.
//! * Pages are handed on one by one, and of an object only what is needed is read. One that cannot be understood is there all the
//!   same: what was known of it stays.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};
use kube::client::Client;
use kube::core::Request;
use kube::core::params::{ListParams, WatchParams};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::client::{Connector, Failure, PATIENCE, parse, read};
use super::now;
use super::resource::{Line, Named, Page, Problem, Resource, Versioned};
use super::state::Object;
use super::tell::When;

/// Objects of a page.
const PAGE: u32 = 500;
/// Seconds until the server ends a watch; bookmarks come every minute.
const WATCH: u32 = 120;
/// A watch that says nothing for longer has lost its server, ns.
const SILENCE: i64 = (WATCH as i64 + 60) * 1_000_000_000;
/// A watch looks at the clock, and says that it is up to date, so often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Longer than this between two looks is a standstill, ns.
const STALL: i64 = 2_500_000_000;
/// A watch of which at its beginning nothing more comes for so long is up to date; so is one that goes on so soon.
const CAUGHT_UP: Duration = Duration::from_millis(300);
/// A pause of this length is enough in any case.
const LEAST_PAUSE: Duration = Duration::from_millis(5);
/// Bytes of a line: an object is at most a few MB.
const MOST_LINE: u64 = 32 << 20;
/// A watch that ends sooner is a failure.
const MOMENTS: Duration = Duration::from_secs(1);
/// Pauses after failures grow from the first to the last, doubling.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// The question whether the server has a better form by now may take so long.
const PROBE: Duration = Duration::from_secs(10);
/// What the server does not have or does not allow is asked for again after so long.
const LONG_PAUSE: Duration = Duration::from_mins(1);

/// What a watch says.
#[derive(Debug)]
pub(super) enum Told {
    /// An object is there, or has changed.
    Applied { object: Object, when: When, is_new: bool },
    /// An object was deleted.
    Gone { object: Object, when: When },
    /// An object is there, or has changed, and cannot be understood.
    Unread { resource: Resource, named: Named, failure: Failure },
    /// An object was deleted, and its last version cannot be understood.
    GoneUnread { resource: Resource, named: Named, when: When },
    /// All objects were told: these are all. The watch was heard before until `heard`.
    Listed { resource: Resource, uids: HashSet<Arc<str>>, when: When, heard: Option<i64> },
    /// It does not work, and is tried again.
    Failed { resource: Resource, failure: Failure },
    /// It works.
    Works { resource: Resource },
    /// Everything that happened until then was told.
    Heard { resource: Resource, at: i64 },
}

/// See the module documentation.
pub(super) struct Watch {
    pub(super) connector: Arc<Connector>,
    /// The same in the forms of younger and older servers: the first that is there is watched.
    pub(super) forms: &'static [Resource],
    /// Which objects, as a field selector.
    pub(super) fields: Option<String>,
    /// Until when everything was heard.
    pub(super) heard: Option<i64>,
    pub(super) told: mpsc::Sender<Told>,
    /// It begins when this is true.
    pub(super) begin: watch::Receiver<bool>,
    /// Objects of a page; fewer in tests.
    pub(super) page: u32,
}

impl Watch {
    /// Runs until nobody listens any more.
    pub(super) async fn run(mut self) {
        if self.begin.wait_for(|begin| *begin).await.is_err() {
            return;
        }
        let mut failures = 0;
        let mut form = 0;
        let mut version: Option<String> = None;
        while !self.told.is_closed() {
            let Some(resource) = self.forms.get(form).copied() else {
                form = 0;
                tokio::time::sleep(LONG_PAUSE).await;
                continue;
            };
            let failure = match self.follow(resource, &mut version, &mut failures).await {
                Ok(()) => {
                    if let Some(better) = self.better(form).await {
                        (form, version) = (better, None);
                    }
                    continue;
                }
                Err(failure) => failure,
            };
            tracing::debug!("kubernetes: {}: {failure}", resource.name());
            match failure {
                Failure::Gone => (form, version) = (self.better(form).await.unwrap_or(form), None),
                Failure::NotFound if form + 1 < self.forms.len() => {
                    (form, version) = (form + 1, None);
                    continue;
                }
                Failure::NotFound | Failure::Forbidden(_) => {
                    version = None;
                    self.tell(Told::Failed { resource, failure }).await;
                    form = 0;
                    tokio::time::sleep(LONG_PAUSE).await;
                    continue;
                }
                Failure::Brief => {
                    if let Some(better) = self.better(form).await {
                        (form, version) = (better, None);
                    }
                    self.tell(Told::Failed { resource, failure }).await;
                }
                Failure::Unauthorized | Failure::Unreached(_) | Failure::Other(_) => {
                    self.tell(Told::Failed { resource, failure }).await;
                }
            }
            tokio::time::sleep(pause(failures)).await;
            failures += 1;
        }
    }

    async fn tell(&self, told: Told) {
        // Nobody listens any more: the watch ends by itself.
        let _ = self.told.send(told).await;
    }

    /// A form before this one that the server has by now.
    async fn better(&self, form: usize) -> Option<usize> {
        let first = ListParams::default().limit(1);
        for (number, resource) in self.forms.iter().enumerate().take(form) {
            let (_, client) = self.connector.client().await.ok()?;
            if let Ok(Ok(_)) = tokio::time::timeout(PROBE, get(&client, *resource, &first)).await {
                return Some(number);
            }
        }
        None
    }

    /// Lists if that is needed, then watches until the watch ends; `failures` are those since a watch has lasted.
    async fn follow(
        &mut self,
        resource: Resource,
        version: &mut Option<String>,
        failures: &mut u32,
    ) -> Result<(), Failure> {
        let (number, client) = self.connector.client().await?;
        let result = self.follow_with(&client, resource, version, failures).await;
        if result.as_ref().is_err_and(Failure::is_of_connection) {
            self.connector.renew(number).await;
        }
        result
    }

    async fn follow_with(
        &mut self,
        client: &Client,
        resource: Resource,
        version: &mut Option<String>,
        failures: &mut u32,
    ) -> Result<(), Failure> {
        let from = match version.clone() {
            Some(version) => version,
            None => self.list(client, resource).await?,
        };
        *version = Some(from.clone());
        let timeout = WATCH + u32::try_from(now() / 1_000_000 % 30).unwrap_or(0);
        let mut params = WatchParams::default().timeout(timeout);
        params.field_selector.clone_from(&self.fields);
        let request = Request::new(resource.path());
        let request =
            if resource.is_bare() { request.watch_metadata(&params, &from) } else { request.watch(&params, &from) };
        let stream = client.request_stream(request.map_err(|error| Failure::Other(error.to_string()))?);
        let stream = tokio::time::timeout(PATIENCE, stream).await.map_err(|_| Failure::late())??;
        if *failures == 0 {
            self.tell(Told::Works { resource }).await;
        }
        self.read(Box::pin(stream), resource, version, failures).await
    }

    /// Tells all objects; the version of the list.
    async fn list(&mut self, client: &Client, resource: Resource) -> Result<String, Failure> {
        let asked = now();
        let heard = self.heard;
        let (mut uids, mut more) = (HashSet::new(), None);
        loop {
            let mut params = ListParams::default().limit(self.page);
            params.field_selector.clone_from(&self.fields);
            params.continue_token = more.take();
            let body = match get(client, resource, &params).await {
                // The list took longer than the server remembers it: then all at once.
                Err(Failure::Gone) if params.continue_token.is_some() => {
                    (params.continue_token, params.limit) = (None, None);
                    uids.clear();
                    get(client, resource, &params).await?
                }
                body => body?,
            };
            let page: Page<'_> = parse(&body)?;
            let at = now();
            let when = when_listed(heard, asked, at);
            for item in page.items.unwrap_or_default() {
                let (told, uid) = told_by_item(item.get(), resource, when);
                uids.insert(uid);
                self.tell(told).await;
            }
            more = page.metadata.more.filter(|more| !more.is_empty());
            if more.is_some() {
                continue;
            }
            self.tell(Told::Listed { resource, uids, when, heard }).await;
            self.heard = Some(asked);
            return Ok(page.metadata.resource_version);
        }
    }

    /// Tells what a watch says, until it ends.
    async fn read(
        &mut self,
        mut stream: impl AsyncBufRead + Unpin,
        resource: Resource,
        version: &mut Option<String>,
        failures: &mut u32,
    ) -> Result<(), Failure> {
        let mut line = Vec::new();
        let began = Instant::now();
        let (mut awake, mut news, mut said) = (now(), now(), i64::MIN);
        let is_late = self.heard.is_none_or(|heard| awake.saturating_sub(heard) > CAUGHT_UP.as_nanos() as i64);
        // Since when it is read to catch up.
        let mut behind = is_late.then_some(began);
        loop {
            let patience = behind.map_or(HEARTBEAT, |since| pause_of_one_behind(since.elapsed()));
            let next = tokio::time::timeout(patience, next(&mut stream, &mut line)).await;
            let at = now();
            if behind.is_none() && at.saturating_sub(awake) > STALL {
                // This task or the whole host stood still: what is there to be read may have come long ago.
                (behind, self.heard) = (Some(Instant::now()), Some(awake));
            }
            awake = at;
            let has_lasted = began.elapsed() >= MOMENTS;
            if has_lasted && std::mem::take(failures) > 0 {
                self.tell(Told::Works { resource }).await;
            }
            match next {
                Err(_) if at.saturating_sub(news) > SILENCE => return Err(Failure::late()),
                Err(_) => {
                    self.heard = if behind.is_none() { self.heard } else { Some(at) };
                    behind = None;
                    said = at;
                    self.tell(Told::Heard { resource, at }).await;
                    continue;
                }
                Ok(end) => {
                    if !end? {
                        // It ended in order: until now there was nothing more.
                        self.heard = if behind.is_none() { Some(at) } else { self.heard };
                        return if has_lasted { Ok(()) } else { Err(Failure::Brief) };
                    }
                }
            }
            news = at;
            let sure = if behind.is_none() { at } else { self.heard.unwrap_or(at).min(at - 1) };
            self.take(&line, resource, version, When { sure, at }).await?;
            if behind.is_none() {
                self.heard = Some(at);
                // Events may come without a pause.
                if at.saturating_sub(said) > HEARTBEAT.as_nanos() as i64 {
                    said = at;
                    self.tell(Told::Heard { resource, at }).await;
                }
            }
            line.clear();
        }
    }

    async fn take(
        &mut self,
        line: &[u8],
        resource: Resource,
        version: &mut Option<String>,
        when: When,
    ) -> Result<(), Failure> {
        let (told, now) = told_by_line(line, resource, when)?;
        if let Some(told) = told {
            self.tell(told).await;
        }
        *version = Some(now);
        Ok(())
    }
}

/// What a line of a watch tells, and the version that it brings.
pub(super) fn told_by_line(line: &[u8], resource: Resource, when: When) -> Result<(Option<Told>, String), Failure> {
    let Line { kind, object: text } = parse(line)?;
    if kind == "ERROR" {
        let problem: Problem = parse(text.get().as_bytes())?;
        return Err(Failure::of_status(problem.code, &problem.message));
    }
    let versioned: Versioned = parse(text.get().as_bytes())?;
    let told = match resource.object(text.get()) {
        _ if kind == "BOOKMARK" => None,
        Ok(object) if kind == "DELETED" => Some(Told::Gone { object, when }),
        Ok(object) => Some(Told::Applied { object, when, is_new: kind == "ADDED" }),
        Err(_) if kind == "DELETED" => Some(Told::GoneUnread { resource, named: Named::of(text.get()), when }),
        Err(failure) => Some(Told::Unread { resource, named: Named::of(text.get()), failure }),
    };
    Ok((told, versioned.metadata.resource_version))
}

/// What an object in a list tells, and its UID: it is there, whatever it is like.
pub(super) fn told_by_item(item: &str, resource: Resource, when: When) -> (Told, Arc<str>) {
    match resource.object(item) {
        Ok(object) => {
            let uid = object.uid().clone();
            (Told::Applied { object, when, is_new: false }, uid)
        }
        Err(failure) => {
            let named = Named::of(item);
            let uid = named.uid.clone();
            (Told::Unread { resource, named, failure }, uid)
        }
    }
}

/// How sure a list is that was asked for, and came, then.
pub(super) fn when_listed(heard: Option<i64>, asked: i64, at: i64) -> When {
    When { sure: heard.unwrap_or(asked).min(at - 1), at }
}

async fn get(client: &Client, resource: Resource, params: &ListParams) -> Result<Vec<u8>, Failure> {
    let request = Request::new(resource.path());
    let request = if resource.is_bare() { request.list_metadata(params) } else { request.list(params) };
    let request = request.map_err(|error| Failure::Other(error.to_string()))?;
    let answer = async { read(client.request_stream(request).await?).await };
    tokio::time::timeout(PATIENCE, answer).await.map_err(|_| Failure::late())?
}

/// Reads on to the end of a line; false at the end of all. What was read of a line stays in `line` if this is given up.
async fn next(stream: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> Result<bool, Failure> {
    let room = MOST_LINE.saturating_sub(line.len() as u64);
    let read = stream.take(room).read_until(b'\n', line).await;
    read.map_err(|error| Failure::Other(format!("the watch broke off: {error}")))?;
    match line.last() {
        Some(b'\n') => Ok(true),
        Some(_) if line.len() as u64 >= MOST_LINE => Err(Failure::Other("an object is too large".into())),
        // What was cut off comes again.
        Some(_) | None => Ok(false),
    }
}

/// How long nothing may come of a watch that is being read to catch up, until it has: half as long after each second.
fn pause_of_one_behind(read_for: Duration) -> Duration {
    CAUGHT_UP.mul_f64((-read_for.as_secs_f64()).exp2()).max(LEAST_PAUSE)
}

fn pause(failures: u32) -> Duration {
    let (first, last) = PAUSES;
    let pause = first.saturating_mul(1 << failures.min(8)).min(last);
    // Nodes do not come back all at once.
    pause.mul_f64(0.75 + (now() / 1_000 % 500) as f64 / 1_000.0)
}

/// Objects of a page as watches ask for them.
pub(super) const fn page() -> u32 {
    PAGE
}
