//! Erasures over HTTP: who may, what is asked, what is told.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wiretag_store::QueryLimits;

use crate::{Server, eventually};

/// The status of a request with these headers, and the whole answer.
pub(crate) async fn status(server: &Server, (method, path): (&str, &str), headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         {headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (text.split(' ').nth(1).unwrap().parse().unwrap(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_token_may_erase() {
    let server = Server::start(QueryLimits::default()).await;
    let question = json!({"filter": "client_pod == pod-0", "reason": "request 1"}).to_string();
    let post = ("POST", "/api/v1/erasures");
    assert_eq!(status(&server, post, "", &question).await.0, 401);
    assert_eq!(status(&server, post, "authorization: Bearer other\r\n", &question).await.0, 401);
    let (code, text) = status(&server, ("POST", "/api/v1/login"), "", "{\"token\":\"token\"}").await;
    assert_eq!(code, 204, "{text}");
    let cookie = text.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    let session = format!("cookie: {}\r\nx-wiretag: 1\r\n", cookie.split(';').next().unwrap());
    let (code, text) = status(&server, post, &session, &question).await;
    assert!(code == 403 && text.contains("only the token may"), "{text}");
    assert_eq!(status(&server, ("GET", "/api/v1/erasures"), &session, "").await.0, 200, "but it may look");
    assert_eq!(status(&server, ("GET", "/api/v1/erasures"), "", "").await.0, 401);
    let (_, answer) = server.get("/api/v1/erasures", &[]).await;
    assert_eq!(answer, json!({"erasures": []}), "nothing of that was noted");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_is_begun_followed_and_kept_on_record() {
    let server = Server::start(QueryLimits::default()).await;
    let everything =
        || server.get("/api/v1/flows", &[("from", "2026-03-01T00:00:00Z"), ("to", "2026-03-02T00:00:00Z")]);
    assert_eq!(everything().await.1["flows"].as_array().unwrap().len(), 6);
    let question = json!({"filter": "client_pod == pod-0", "dry_run": true, "reason": "request 1"});
    let (code, answer) = server.post("/api/v1/erasures", question).await;
    assert_eq!((code, &answer["flows"], &answer["transactions"]), (200, &json!(3), &json!(0)), "{answer}");
    assert_eq!(everything().await.1["flows"].as_array().unwrap().len(), 6);

    let question = json!({"filter": "client_pod == pod-0", "reason": "request 1", "by": "Jane"});
    let (code, begun) = server.post("/api/v1/erasures", question).await;
    assert_eq!((code, &begun["reason"]), (202, &json!("request 1")), "{begun}");
    let path = format!("/api/v1/erasures/{}", begun["id"]);
    let runtime = tokio::runtime::Handle::current();
    let done = tokio::task::block_in_place(|| {
        eventually(30, "it has ended", || {
            let (_, now) = runtime.block_on(server.get(&path, &[]));
            (now["state"] != "running").then_some(now)
        })
    });
    assert_eq!((&done["flows"], &done["problem"]), (&json!(3), &json!(null)), "{done}");
    let who = done["who"].as_str().unwrap();
    assert!(who.contains("Jane") && who.contains("127.0.0.1"), "{who}");
    let removed: u64 = done["files"].as_array().unwrap().iter().map(|file| file["items"].as_u64().unwrap()).sum();
    assert_eq!(removed, 3, "{done}");
    assert_eq!(everything().await.1["flows"].as_array().unwrap().len(), 3);
    let (_, all) = server.get("/api/v1/erasures", &[]).await;
    assert_eq!(all["erasures"].as_array().unwrap().len(), 1, "{all}");

    for wrong in [
        json!({"filter": "client_pod == pod-0"}),
        json!({"filter": "", "reason": "why"}),
        json!({"filter": "prt == 1", "reason": "why"}),
        json!({"filter": "port == 1", "reason": "why", "from": "2030-01-01"}),
        json!({"filter": "port == 1", "reason": "why", "only": "packets"}),
        json!({"filter": "port == 1", "reason": "x".repeat(1_001)}),
    ] {
        let (code, answer) = server.post("/api/v1/erasures", wrong).await;
        assert!(code == 400 && answer["error"]["message"].is_string(), "{answer}");
    }
    assert_eq!(server.get("/api/v1/erasures/99", &[]).await.0, 404);
}
