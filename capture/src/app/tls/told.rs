//! What hellos tell a flow.

use super::Carrier;
use super::hello::{ClientHello, ServerHello};
use super::ja4::{is_grease, ja4, ja4_of_ssl2};
use super::reader::Next;
use crate::app::text::{MAX_HOST, clean};
use crate::record::Tls;

const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const HELLO_VERIFY_REQUEST: u8 = 3;
/// Drafts of TLS 1.3 before the 22nd.
const OLD_HELLO_RETRY_REQUEST: u8 = 6;

/// Takes in a handshake message; `Done` when its sender's hello is known, or will not come.
pub(in crate::app) fn message(fields: &mut Tls, kind: u8, body: &[u8], carrier: Carrier) -> Next {
    match kind {
        CLIENT_HELLO => {
            if let Some(hello) = ClientHello::parse(body, carrier) {
                client_hello(fields, &hello, carrier);
            }
            Next::Done
        }
        SERVER_HELLO => match ServerHello::parse(body) {
            Some(hello) if hello.is_retry() => Next::More,
            Some(hello) => {
                server_hello(fields, &hello);
                Next::Done
            }
            None => Next::Done,
        },
        HELLO_REQUEST | HELLO_VERIFY_REQUEST | OLD_HELLO_RETRY_REQUEST => Next::More,
        _ => Next::Done,
    }
}

/// The name of a version of TLS or DTLS, or of a draft of one.
const fn version_name(version: u16) -> Option<&'static str> {
    Some(match version {
        0x0304 | 0x7f00..=0x7fff | 0xfefc => "1.3",
        0x0303 | 0xfefd => "1.2",
        0x0302 => "1.1",
        0x0301 | 0xfeff => "1.0",
        0x0300 => "ssl3",
        0x0002 => "ssl2",
        _ => return None,
    })
}

/// Takes in the begin of a message whose rest is lost: what it names is true, what it does not name may have been there.
pub(super) fn cut_message(fields: &mut Tls, kind: u8, body: &[u8]) {
    if kind == CLIENT_HELLO
        && let Some(hello) = ClientHello::parse(body, Carrier::Tls)
    {
        fields.version = fields.version.or(highest_supported(&hello));
        name_and_alpn(fields, &hello);
    }
}

fn client_hello(fields: &mut Tls, hello: &ClientHello<'_>, carrier: Carrier) {
    fields.version = fields.version.or(highest_supported(hello)).or(version_name(hello.legacy_version()));
    name_and_alpn(fields, hello);
    fields.ja4 = Some(ja4(hello, carrier).into());
}

fn highest_supported(hello: &ClientHello<'_>) -> Option<&'static str> {
    let supported = hello.supported_versions().into_iter().flatten().filter(|version| !is_grease(*version));
    // The names sort as the versions do: nothing before TLS 1.0 is listed there.
    supported.filter_map(version_name).filter(|name| name.starts_with('1')).max()
}

/// What the client offers stands where the server has not spoken, whichever is seen first.
fn name_and_alpn(fields: &mut Tls, hello: &ClientHello<'_>) {
    fields.sni = hello.server_name().map(|name| clean(&name.to_ascii_lowercase(), MAX_HOST));
    if fields.alpn.is_none() {
        fields.alpn = hello.first_alpn().map(|protocol| clean(protocol, MAX_HOST));
    }
}

/// SSL 2.0's ClientHello names a version and no server.
pub(super) fn ssl2_client_hello(fields: &mut Tls, version: u16) {
    fields.version = fields.version.or(version_name(version));
    fields.ja4 = Some(ja4_of_ssl2(version).into());
}

fn server_hello(fields: &mut Tls, hello: &ServerHello<'_>) {
    fields.version = version_name(hello.version()).or(fields.version);
    if let Some(protocol) = hello.alpn() {
        fields.alpn = Some(clean(protocol, MAX_HOST));
    }
}
