//! Where flows live: a hash table from key to slot, slots in blocks that never move, a timer wheel, and the order of
//! eviction.
//!
//! A packet of a known flow touches the flow alone: its deadlines are computed from when it was last touched, so the
//! wheel only has to look at it sometimes. A flow that the wheel finds not due is put back at the deadline that holds
//! by then. Eviction gives a second chance to what was touched since it was queued (the clock algorithm), so its order
//! is nearly that of the last packet. Flows that own memory (a handshake, missing segments, what an application's parser
//! keeps) are in queues of their own, so that one of them is found when it is memory that is short.
//!
//! Nothing depends on the order of the hash table, whose seed is random (keys come from the wire), nor on when the
//! wheel looks at a flow: whether it is due follows from its own times and the clock.

use foldhash::fast::RandomState;

use super::blocks::Blocks;
use super::class::{CLASSES, Class, VALUES, Value};
use super::config::FlowConfig;
use super::index::Index;
use super::key::Key;
use super::moment::{self, Moment};
use super::queue::Queues;
use super::slice::{Flow, Weight};
use super::sys;

/// Nanoseconds in a tick of the wheel (17 ms), as a shift.
const TICK: u32 = 24;
/// Buckets of the wheel: 69 s ahead. Later deadlines are looked at on the way.
const BUCKETS: i64 = 4096;
/// Flows that get a second chance before one is evicted all the same.
const MOST_CHANCES: usize = 64;

/// Flows that are asked for ahead of their tick: so many stay in the cache until then.
const MOST_EXPECTED: usize = 24;

/// Nothing comes late any more after so long, in [`Moment`] units: 2 s.
const SILENCE: u32 = 2_000;

/// Timeouts in [`Moment`] units.
pub(super) struct Timeouts {
    idle: [u32; CLASSES],
    active: u32,
    /// No idle timeout is shorter.
    least: u32,
}

impl Timeouts {
    fn new(config: &FlowConfig) -> Self {
        let idle = Class::ALL.map(|class| moment::units(class.idle_timeout(config)));
        let least = idle.into_iter().fold(u32::MAX, u32::min);
        Self { idle, active: moment::units(config.active_timeout), least }
    }

    /// Whether nothing is due for certain: what nearly all packets of a flow find.
    #[inline]
    fn is_fresh(&self, flow: &Flow, now: Moment) -> bool {
        now.since(flow.touched) < self.least && now.since(flow.slice_began) < self.active
    }

    fn idle_of(&self, class: Class) -> u32 {
        self.idle.get(class as usize).copied().unwrap_or(1)
    }

    /// Whether a slice ends in silence, too: a flow that may be silent for long would hold it back until it is over.
    fn ends_in_silence(&self, class: Class) -> bool {
        self.idle_of(class) >= self.active.saturating_mul(2)
    }

    /// Whether a slice that has lasted for long enough was quiet at its end.
    fn is_quiet(&self, flow: &Flow) -> bool {
        self.active.saturating_sub(flow.touched.since(flow.slice_began)) >= SILENCE
    }

    /// Whether a slice has lasted for long enough.
    fn has_lasted(&self, flow: &Flow, now: Moment) -> bool {
        !flow.is_empty() && now.since(flow.slice_began) >= self.active
    }

    /// Units until the flow is idle for too long, or its slice has lasted for long enough.
    fn remaining(&self, flow: &Flow, now: Moment) -> u32 {
        let idle = self.idle_of(flow.class).saturating_sub(now.since(flow.touched));
        if flow.is_empty() || self.has_lasted(flow, now) {
            return idle;
        }
        idle.min(self.active.saturating_sub(now.since(flow.slice_began)))
    }
}

/// See the module documentation.
pub(super) struct Table {
    seed: RandomState,
    index: Index,
    flows: Blocks<Option<Flow>>,
    /// Flows by their [`Value`], those that own memory apart, and free slots.
    values: Queues,
    /// What all flows own, bytes.
    owned: usize,
    wheel: Queues,
    /// Ticks up to here were looked at.
    tick: Option<i64>,
    timeouts: Timeouts,
}

/// The queue of free slots.
const FREE: usize = 2 * VALUES;

/// The queue of the flows of a value that own nothing, and of those that do.
const fn queue(value: Value, owns: bool) -> usize {
    value as usize + if owns { VALUES } else { 0 }
}

/// What weighing a flow anew brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weighed {
    /// It owns what it owned, or less.
    NoMore,
    /// It owns more.
    More,
}

impl Table {
    pub(super) fn new(config: &FlowConfig) -> Self {
        Self {
            seed: RandomState::default(),
            index: Index::default(),
            flows: Blocks::new(),
            values: Queues::new(FREE + 1),
            owned: 0,
            wheel: Queues::new(BUCKETS as usize),
            tick: None,
            timeouts: Timeouts::new(config),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    #[inline]
    pub(super) fn hash(&self, key: &Key) -> u32 {
        key.seeded(&self.seed) as u32
    }

    #[inline]
    pub(super) fn find(&self, hash: u32, key: &Key) -> Option<u32> {
        self.index.find(hash, |slot| self.is(slot, key))
    }

    /// Has the processor fetch where the slot of a key with this hash is found.
    #[inline]
    pub(super) fn expect(&self, hash: u32) {
        self.index.prefetch(hash);
    }

    /// The slot that the flow of a key with this hash has, if there is one; has the processor fetch it.
    #[inline]
    pub(super) fn expect_flow(&self, hash: u32) -> Option<u32> {
        let slot = self.index.find(hash, |_| true)?;
        if let Some(flow) = self.flows.get(slot) {
            sys::prefetch(flow);
        }
        Some(slot)
    }

    /// Whether this is the flow of a key.
    #[inline]
    pub(super) fn is(&self, slot: u32, key: &Key) -> bool {
        self.get(slot).is_some_and(|flow| flow.key == *key)
    }

    #[inline]
    pub(super) fn get(&self, slot: u32) -> Option<&Flow> {
        self.flows.get(slot)?.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Flow> {
        self.flows.get_mut(slot)?.as_mut()
    }

    /// Adds the flow that `make` makes, whose key is not in the table.
    #[inline]
    pub(super) fn insert(&mut self, hash: u32, make: impl FnOnce() -> Flow) -> u32 {
        // The one that was freed last is still in the cache.
        let slot = match self.values.last(FREE) {
            Some(slot) => {
                self.values.remove(slot);
                slot
            }
            None => self.flows.push(None),
        };
        if let Some(place) = self.flows.get_mut(slot) {
            *place = Some(make());
        }
        self.index.insert(hash, slot);
        slot
    }

    pub(super) fn remove(&mut self, slot: u32) {
        let Some(flow) = self.get(slot) else { return };
        let hash = self.hash(&flow.key);
        self.owned -= flow.weighed() as usize;
        self.index.remove(hash, slot);
        if let Some(place) = self.flows.get_mut(slot) {
            *place = None;
        }
        self.wheel.remove(slot);
        self.values.push(FREE, slot);
    }

    /// Whether something may be due of a flow at `clock`.
    #[inline]
    pub(super) fn may_be_due(&self, slot: u32, clock: Moment) -> bool {
        self.get(slot).is_none_or(|flow| !self.timeouts.is_fresh(flow, clock))
    }

    /// Whether a flow is idle for too long at `clock`: then it is over.
    #[inline]
    pub(super) fn is_idle(&self, slot: u32, clock: Moment) -> bool {
        let idle = |flow: &Flow| clock.since(flow.touched) >= self.timeouts.idle_of(flow.class);
        self.get(slot).is_some_and(idle)
    }

    /// Whether a packet at `clock` is one of the flow's next slice: the current one has lasted for long enough.
    pub(super) fn is_of_next_slice(&self, slot: u32, clock: Moment) -> bool {
        self.get(slot).is_some_and(|flow| self.timeouts.has_lasted(flow, clock))
    }

    /// Whether the current slice is over at `clock`, though no packet came.
    pub(super) fn is_over_in_silence(&self, slot: u32, clock: Moment) -> bool {
        let is_over = |flow: &Flow| self.timeouts.ends_in_silence(flow.class) && self.timeouts.has_lasted(flow, clock);
        self.get(slot).is_some_and(is_over)
    }

    /// A packet changed a flow: its class was `before`, or a slice begins, and perhaps what it owns. So its value and its
    /// deadline are others. A deadline that became later needs nothing: the wheel finds that when it looks for the earlier
    /// one.
    pub(super) fn update(&mut self, slot: u32, before: Option<Class>, weight: Option<Weight>, clock: i64) -> Weighed {
        let Some(flow) = self.get(slot) else { return Weighed::NoMore };
        let (class, owns) = (flow.class, flow.weighed() > 0);
        let owns_otherwise = weight.is_some_and(|weight| (weight.before == 0) != (weight.after == 0));
        if owns_otherwise || before.is_none_or(|before| before.value() != class.value()) {
            self.values.push(queue(class.value(), owns), slot);
        }
        let sooner = |before: Class| self.timeouts.idle_of(class) < self.timeouts.idle_of(before);
        if before.is_none_or(sooner) {
            self.schedule(slot, clock);
        }
        let Some(Weight { before, after }) = weight else { return Weighed::NoMore };
        self.owned = self.owned + after as usize - before as usize;
        if after > before { Weighed::More } else { Weighed::NoMore }
    }

    /// Whether the slice that is over was quiet at its end, so that nothing of it comes late any more.
    pub(super) fn ended_quietly(&self, slot: u32) -> bool {
        self.get(slot).is_some_and(|flow| self.timeouts.is_quiet(flow))
    }

    /// Has the wheel look at the flow when it, or its slice, will be over, if it stays quiet.
    pub(super) fn schedule(&mut self, slot: u32, clock: i64) {
        let Some(flow) = self.get(slot) else { return };
        let deadline = (clock >> moment::UNIT) + i64::from(self.timeouts.remaining(flow, Moment::of(clock)));
        let units_in_tick = 1 << (TICK - moment::UNIT);
        let tick = self.tick.unwrap_or(clock >> TICK);
        let at = (deadline + units_in_tick - 1).div_euclid(units_in_tick).clamp(tick + 1, tick + BUCKETS - 1);
        self.wheel.push(at.rem_euclid(BUCKETS) as usize, slot);
    }

    /// Whether a tick began that was not looked at.
    #[inline]
    pub(super) fn is_behind(&self, clock: i64) -> bool {
        self.tick != Some(clock >> TICK)
    }

    /// The next flow to look at, out of the wheel; `None` when all ticks up to `clock` were looked at.
    pub(super) fn wake(&mut self, clock: i64) -> Option<u32> {
        let now = clock >> TICK;
        // After a jump each bucket is visited once.
        let mut tick = self.tick.unwrap_or(now).max(now - BUCKETS);
        loop {
            if let Some(slot) = self.wheel.first(tick.rem_euclid(BUCKETS) as usize) {
                self.expect_slot(self.wheel.after(slot));
                self.wheel.remove(slot);
                self.tick = Some(tick);
                return Some(slot);
            }
            if tick >= now {
                self.tick = Some(now);
                return None;
            }
            tick += 1;
        }
    }

    /// Has the processor fetch the flows that the tick after `clock` looks at.
    pub(super) fn expect_tick(&self, clock: i64) {
        let tick = (clock >> TICK) + 1;
        let mut next = self.wheel.first(tick.rem_euclid(BUCKETS) as usize);
        for _ in 0..MOST_EXPECTED {
            let Some(slot) = next else { break };
            self.expect_slot(next);
            next = self.wheel.after(slot);
        }
    }

    /// The time as of which the wheel judges at `clock`: the beginning of its tick, so that it does not matter how often
    /// it is asked within.
    pub(super) const fn judged(clock: i64) -> Moment {
        Moment::of(clock >> TICK << TICK)
    }

    /// The flow to evict where a slot is needed: of the least value, nearly the longest quiet of these.
    pub(super) fn least_valuable(&mut self, now: Moment) -> Option<(u32, Value)> {
        Value::ALL.iter().find_map(|value| self.quiet_of(*value, &[false, true], now))
    }

    /// The same where what flows own leaves no room for more slots: of a value, first those that own something.
    pub(super) fn least_valuable_heavy(&mut self, now: Moment) -> Option<(u32, Value)> {
        let mut of = |value: Value, owns: bool| self.quiet_of(value, &[owns], now);
        Value::ALL.iter().find_map(|value| of(*value, true).or_else(|| of(*value, false)))
    }

    /// The flow to evict where memory is needed: of those that own some.
    pub(super) fn least_valuable_owner(&mut self, now: Moment) -> Option<(u32, Value)> {
        Value::ALL.iter().find_map(|value| self.quiet_of(*value, &[true], now))
    }

    /// Nearly the longest quiet flow of a value, of those that own something or not.
    fn quiet_of(&mut self, value: Value, owns: &[bool], now: Moment) -> Option<(u32, Value)> {
        for _ in 0..MOST_CHANCES {
            let (slot, owns) = self.front_of(value, owns, now)?;
            match self.get_mut(slot) {
                Some(flow) if flow.referenced => flow.referenced = false,
                Some(_) | None => return Some((slot, value)),
            }
            self.values.push(queue(value, owns), slot);
        }
        self.front_of(value, owns, now).map(|(slot, _)| (slot, value))
    }

    /// The longer quiet of the flows at the front of these queues.
    fn front_of(&self, value: Value, owns: &[bool], now: Moment) -> Option<(u32, bool)> {
        let fronts = owns.iter().filter_map(|owns| Some((self.values.first(queue(value, *owns))?, *owns)));
        fronts.max_by_key(|(slot, _)| self.get(*slot).map(|flow| now.since(flow.touched)))
    }

    /// A slot that holds a flow, if there is one: of the least value first.
    pub(super) fn any(&self) -> Option<u32> {
        let mut queues = Value::ALL.iter().flat_map(|value| [queue(*value, false), queue(*value, true)]);
        let slot = queues.find_map(|queue| self.values.first(queue))?;
        self.expect_slot(self.values.after(slot));
        Some(slot)
    }

    /// Has the processor fetch the flow that is looked at next.
    fn expect_slot(&self, slot: Option<u32>) {
        if let Some(flow) = slot.and_then(|slot| self.flows.get(slot)) {
            sys::prefetch(flow);
        }
    }

    /// Number of slots, free ones too.
    pub(super) fn slot_count(&self) -> u32 {
        self.flows.len()
    }

    /// All slots that hold a flow.
    pub(super) fn slots(&self) -> Vec<u32> {
        let slots = self.flows.iter().zip(0..);
        slots.filter_map(|(flow, slot)| flow.is_some().then_some(slot)).collect()
    }

    /// Begins anew with time; the table is empty.
    pub(super) fn forget_time(&mut self) {
        self.tick = None;
    }

    /// Bytes of memory that the table itself takes: slots, index and queues. They stay when flows end.
    pub(super) fn own_bytes(&self) -> usize {
        self.index.memory_bytes() + self.flows.memory_bytes() + self.values.memory_bytes() + self.wheel.memory_bytes()
    }

    /// Bytes of memory that flows own.
    pub(super) const fn owned_bytes(&self) -> usize {
        self.owned
    }

    /// Bytes by which [`Self::own_bytes`] grows with one more flow.
    pub(super) fn growth(&self) -> usize {
        if self.values.first(FREE).is_some() {
            return 0;
        }
        let slot = self.flows.len();
        self.flows.growth() + self.index.growth() + self.values.growth(slot) + self.wheel.growth(slot)
    }
}
