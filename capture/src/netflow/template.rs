//! Templates: how the records of a set are made up (RFC 3954, 5.2 and 6.1; RFC 7011, 3.4).

use std::collections::HashMap;
use std::sync::Arc;

use super::element::{Element, element};
use super::wire::Reader;

/// Length of a field that says its own (RFC 7011, 7).
const VARIABLE: u16 = u16::MAX;
/// Fields of a template at most.
const MOST_FIELDS: usize = 512;
/// What is kept of a session's templates at most.
const MOST_TEMPLATES: usize = 256;

/// Which of the two formats with templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Dialect {
    /// NetFlow version 9.
    V9,
    /// IPFIX, which is version 10.
    Ipfix,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    element: Element,
    length: u16,
}

/// What the records of a set are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// Flows.
    Flows,
    /// The exporter itself. NetFlow v9 says the scope in types of its own.
    Options(Scope),
}

/// What options hold for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// All that the exporter tells in this domain.
    Domain,
    /// One interface.
    Interface,
    /// Something narrower: a line card, a cache, a template.
    Other,
}

/// How a record is made up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) subject: Subject,
    fields: Box<[Field]>,
    /// Bytes of the shortest record, at least 1.
    shortest: usize,
}

impl Template {
    fn new(subject: Subject, fields: Vec<Field>) -> Option<Self> {
        // Fields without length say nothing, and would make many steps of a record of one byte.
        let fields: Vec<Field> = fields.into_iter().filter(|field| field.length > 0).collect();
        let length = |field: &Field| if field.length == VARIABLE { 1 } else { usize::from(field.length) };
        let shortest = fields.iter().map(length).sum();
        let is_possible = (1..usize::from(u16::MAX)).contains(&shortest);
        is_possible.then(|| Self { subject, fields: fields.into(), shortest })
    }

    /// Of fields that are the same in every message.
    pub(super) fn of_flows(fields: &[(Element, u16)]) -> Self {
        let shortest = fields.iter().map(|(_, length)| usize::from(*length)).sum();
        let fields = fields.iter().map(|(element, length)| Field { element: *element, length: *length }).collect();
        Self { subject: Subject::Flows, fields, shortest }
    }

    /// Reads a record: each known field is given to `each`. `None` at the end of the set: what is left is padding, or
    /// the rest of a record that a field without end made unreadable.
    pub(super) fn read<'a>(&self, set: &mut Reader<'a>, mut each: impl FnMut(Element, &'a [u8])) -> Option<()> {
        if set.len() < self.shortest {
            return None;
        }
        for field in &self.fields {
            let contents =
                if field.length == VARIABLE { set.variable()? } else { set.take(usize::from(field.length))? };
            if field.element != Element::Unknown {
                each(field.element, contents);
            }
        }
        Some(())
    }
}

/// What a set of templates says of one id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    Is(u16, Template),
    /// Withdrawn (RFC 7011, 8.1).
    Gone(u16),
    /// All of the set's kind are withdrawn.
    AllGone,
    /// It cannot be used.
    Refused(u16),
}

/// Reads the next template of a set of templates for flows; `Err` if the set makes no sense from here on.
pub(super) fn of_flows(dialect: Dialect, set: &mut Reader<'_>) -> Result<Option<News>, ()> {
    if set.len() < 4 {
        return Ok(None);
    }
    let (id, count) = (set.u16().ok_or(())?, usize::from(set.u16().ok_or(())?));
    if count == 0 {
        return Ok(withdrawn(dialect, id, 2));
    }
    let fields = fields(dialect, set, count)?;
    Ok(Some(news(id, Subject::Flows, fields)))
}

/// As [`of_flows`], of a set of templates for options.
pub(super) fn of_options(dialect: Dialect, set: &mut Reader<'_>) -> Result<Option<News>, ()> {
    match dialect {
        Dialect::V9 => options_v9(set),
        Dialect::Ipfix => options_ipfix(set),
    }
}

fn options_v9(set: &mut Reader<'_>) -> Result<Option<News>, ()> {
    if set.len() < 6 {
        return Ok(None);
    }
    let id = set.u16().ok_or(())?;
    let (scopes, options) = (set.u16().ok_or(())?, set.u16().ok_or(())?);
    if id == 0 && scopes == 0 {
        // Padding of more than three bytes.
        return Ok(None);
    }
    let (mut scopes, mut options) = {
        let scopes = set.take(scopes.into()).ok_or(())?;
        (Reader::new(scopes), Reader::new(set.take(options.into()).ok_or(())?))
    };
    let (mut all, mut scope) = (Vec::new(), Scope::Domain);
    while !scopes.is_empty() {
        let (kind, length) = (scopes.u16().ok_or(())?, scopes.u16().ok_or(())?);
        // RFC 3954, 6.1: 1 system, 2 interface, 3 line card, 4 cache, 5 template.
        let element = if kind == 2 { Element::Ingress } else { Element::Unknown };
        scope = match kind {
            1 => scope,
            2 => Scope::Interface,
            _ => Scope::Other,
        };
        all.push(Field { element, length });
    }
    let count = options.len() / 4;
    all.extend(fields(Dialect::V9, &mut options, count)?.into_iter().flatten());
    Ok(Some(news(id, Subject::Options(scope), Some(all))))
}

fn options_ipfix(set: &mut Reader<'_>) -> Result<Option<News>, ()> {
    if set.len() < 4 {
        return Ok(None);
    }
    let (id, count) = (set.u16().ok_or(())?, usize::from(set.u16().ok_or(())?));
    if count == 0 {
        return Ok(withdrawn(Dialect::Ipfix, id, 3));
    }
    let scopes = usize::from(set.u16().ok_or(())?);
    if scopes == 0 || scopes > count {
        return Err(());
    }
    let mut ahead = *set;
    let fields = fields(Dialect::Ipfix, set, count)?;
    let mut scope = Scope::Domain;
    for _ in 0..scopes {
        let id = ahead.u16().ok_or(())?;
        let _length = ahead.u16();
        if id & ENTERPRISE != 0 {
            let _ = ahead.u32();
        }
        scope = match id {
            // Exporter, exporting or metering process, observation domain, selector (which says itself whose it is).
            130 | 131 | 143 | 144 | 149 | 302 => scope,
            10 => Scope::Interface,
            _ => Scope::Other,
        };
    }
    Ok(Some(news(id, Subject::Options(scope), fields)))
}

/// A template of no fields withdraws (IPFIX); in NetFlow v9 it is padding or nonsense.
fn withdrawn(dialect: Dialect, id: u16, all: u16) -> Option<News> {
    match dialect {
        Dialect::V9 => None,
        Dialect::Ipfix if id == all => Some(News::AllGone),
        Dialect::Ipfix => Some(News::Gone(id)),
    }
}

fn news(id: u16, subject: Subject, fields: Option<Vec<Field>>) -> News {
    let template = fields.filter(|_| id >= 256).and_then(|fields| Template::new(subject, fields));
    template.map_or(News::Refused(id), |template| News::Is(id, template))
}

const ENTERPRISE: u16 = 0x8000;

/// The fields that follow; `None` if they are more than are kept.
fn fields(dialect: Dialect, set: &mut Reader<'_>, count: usize) -> Result<Option<Vec<Field>>, ()> {
    if count * 4 > set.len() {
        return Err(());
    }
    let mut fields = Vec::with_capacity(count.min(MOST_FIELDS));
    for _ in 0..count {
        let (id, length) = (set.u16().ok_or(())?, set.u16().ok_or(())?);
        let enterprise = match dialect {
            Dialect::Ipfix if id & ENTERPRISE != 0 => Some(set.u32().ok_or(())?),
            Dialect::Ipfix | Dialect::V9 => None,
        };
        // NetFlow v9 has no fields of variable length; one of 65,535 bytes fits into no datagram.
        if fields.len() < MOST_FIELDS {
            let id = if enterprise.is_some() { id & !ENTERPRISE } else { id };
            fields.push(Field { element: element(enterprise, id), length });
        }
    }
    let fits = count <= MOST_FIELDS && (dialect == Dialect::Ipfix || fields.iter().all(|own| own.length != VARIABLE));
    Ok(fits.then_some(fields))
}

/// Templates of a session, by id.
#[derive(Debug, Default)]
pub(super) struct Templates {
    known: HashMap<u16, Arc<Template>>,
    fields: usize,
}

impl Templates {
    pub(super) fn get(&self, id: u16) -> Option<&Arc<Template>> {
        self.known.get(&id)
    }

    /// Templates that are known.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Fields of all of them: what they take of memory.
    pub(super) const fn fields(&self) -> usize {
        self.fields
    }

    /// Takes what was told; false if there is no room for it.
    pub(super) fn learn(&mut self, news: News, of_options: bool) -> bool {
        match news {
            News::Is(id, template) => {
                self.remove(id);
                if self.known.len() >= MOST_TEMPLATES {
                    return false;
                }
                self.fields += template.fields.len();
                self.known.insert(id, Arc::new(template));
            }
            News::Gone(id) => self.remove(id),
            News::AllGone => {
                self.known.retain(|_, template| (template.subject != Subject::Flows) != of_options);
                self.fields = self.known.values().map(|template| template.fields.len()).sum();
            }
            News::Refused(id) => {
                // What was known of the id is not true any more.
                self.remove(id);
                return false;
            }
        }
        true
    }

    fn remove(&mut self, id: u16) {
        if let Some(template) = self.known.remove(&id) {
            self.fields -= template.fields.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_without_length_cost_nothing() {
        let mut set = vec![1, 0, 2, 0];
        (0..511).for_each(|_| set.extend([0, 8, 0, 0]));
        set.extend([0, 1, 0, 1]);
        for dialect in [Dialect::V9, Dialect::Ipfix] {
            let Ok(Some(News::Is(256, template))) = of_flows(dialect, &mut Reader::new(&set)) else {
                panic!("{dialect:?}")
            };
            assert_eq!((template.fields.len(), template.shortest), (1, 1));
        }
    }
}
