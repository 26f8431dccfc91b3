//! What sources are worth: how exact their times are, and whose word counts for which attribute.

use std::sync::Arc;

/// How far the beginnings and ends that the Kubernetes API tells may be off: its times are whole seconds, of clocks that
/// differ by up to two.
pub const UNCERTAIN: i64 = 3_000_000_000;

/// Most sources in one timeline; there are six.
const MOST: usize = 255;

/// Sources by the number that stands for them.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    names: Vec<Arc<str>>,
    /// By number: until when a source was in touch.
    heard: Vec<i64>,
    /// By number: whether its times are not exact.
    loose: Vec<bool>,
    /// By number: whether it says each time all that holds.
    complete: Vec<bool>,
}

impl Sources {
    pub(super) fn intern(&mut self, source: &Arc<str>) -> u8 {
        let known = self.names.iter().position(|own| own == source);
        let number = known.unwrap_or_else(|| {
            if self.names.len() < MOST {
                self.names.push(source.clone());
                self.heard.push(i64::MIN);
                self.loose.push(&**source == "kubernetes");
                self.complete.push(&**source == "static");
            }
            self.names.len() - 1
        });
        u8::try_from(number).unwrap_or(u8::MAX)
    }

    pub(super) fn text(&self, source: u8) -> &str {
        self.names.get(usize::from(source)).map_or("", |name| name)
    }

    pub(super) fn name(&self, source: u8) -> Arc<str> {
        self.names.get(usize::from(source)).cloned().unwrap_or_default()
    }

    /// How far the times of a source may be off.
    pub(super) fn slack(&self, source: u8) -> i64 {
        if self.is_loose(source) { UNCERTAIN } else { 0 }
    }

    /// A source is in touch. Until when it was before; [`i64::MIN`]: never.
    pub(super) fn hear(&mut self, source: u8, at: i64) -> i64 {
        let Some(heard) = self.heard.get_mut(usize::from(source)) else { return i64::MIN };
        std::mem::replace(heard, at.max(*heard))
    }

    /// Until when an inexact source was in touch; others are never behind.
    pub(super) fn heard(&self, source: u8) -> i64 {
        let heard = self.heard.get(usize::from(source)).filter(|_| self.is_loose(source));
        heard.copied().unwrap_or(i64::MAX)
    }

    /// Until when all were.
    pub(super) fn all_heard(&self) -> i64 {
        (0..self.names.len())
            .map(|source| self.heard(u8::try_from(source).unwrap_or(u8::MAX)))
            .min()
            .unwrap_or(i64::MAX)
    }

    /// Whether the times of a source are not exact.
    pub(super) fn is_loose(&self, source: u8) -> bool {
        self.loose.get(usize::from(source)).copied().unwrap_or(false)
    }

    /// Whether a source says each time all that holds: then nothing that it tells ends because something else begins.
    pub(super) fn is_complete(&self, source: u8) -> bool {
        self.complete.get(usize::from(source)).copied().unwrap_or(false)
    }

    /// Whose word counts more; lower is better. `of_container`: for a container's name and image.
    pub(super) fn rank(&self, source: u8, of_container: bool) -> usize {
        let ranks: [&str; 6] = if of_container {
            ["static", "cri", "kubernetes", "docker", "cni", "kernel"]
        } else {
            ["static", "kubernetes", "cri", "cni", "docker", "kernel"]
        };
        let name = self.text(source);
        ranks.iter().position(|own| *own == name).unwrap_or(ranks.len())
    }
}
