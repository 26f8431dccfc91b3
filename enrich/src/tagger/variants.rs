//! Identities named more exactly: by the service that was spoken to, and by the container of a pod.
//!
//! Many rows have the same two, so what was made once is used again. What is kept is bounded: when it is too much, all
//! of it is forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use crate::identity::Identity;

/// Variants that are kept at most.
const MOST: usize = 65_536;

/// Of which identity, with which service, and as which of its containers.
type Variant = (usize, Option<Arc<str>>, Option<usize>);

/// See the module documentation.
#[derive(Default)]
pub(super) struct Variants {
    /// With the identity that each was made of, so that its address stays its own.
    made: HashMap<Variant, (Arc<Identity>, Arc<Identity>)>,
}

impl Variants {
    /// `identity` as the server of `service`, and as the only container or the only one that declares `port`.
    pub(super) fn of(
        &mut self,
        identity: Arc<Identity>,
        service: Option<Arc<str>>,
        port: Option<(u8, u16)>,
    ) -> Arc<Identity> {
        let service = service.filter(|service| identity.service.as_ref() != Some(service));
        let member = member(&identity, port);
        if service.is_none() && member.is_none() {
            return identity;
        }
        if self.made.len() >= MOST {
            self.made.clear();
        }
        let variant = (Arc::as_ptr(&identity) as usize, service, member);
        if let Some((_, made)) = self.made.get(&variant) {
            return made.clone();
        }
        let mut named = (*identity).clone();
        if let Some(service) = &variant.1 {
            named.service = Some(service.clone());
        }
        if let Some(member) = member.and_then(|member| identity.containers.get(member)) {
            named.container = Some(member.container.clone());
            named.image = member.image.clone().or(named.image);
        }
        let named = Arc::new(named);
        self.made.insert(variant, (identity, named.clone()));
        named
    }
}

/// Which container of a pod it was, if that is not a guess.
fn member(identity: &Identity, port: Option<(u8, u16)>) -> Option<usize> {
    if identity.container.is_some() {
        return None;
    }
    if let [_] = identity.containers.as_slice() {
        return Some(0);
    }
    let port = port?;
    let mut declaring = identity.containers.iter().enumerate().filter(|(_, member)| member.ports.contains(&port));
    let (first, _) = declaring.next()?;
    declaring.next().is_none().then_some(first)
}
