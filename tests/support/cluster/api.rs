//! Requests to the API server, through curl: TLS with the server's own authority, and the token that may do everything.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Cluster;

impl Cluster {
    /// One request; status and body (`Null` if it is no JSON). Status 0: the server does not answer.
    pub fn request(&self, method: &str, path: &str, content: &str, body: Option<&Value>) -> (u16, Value) {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--max-time", "30", "--cacert", self.value("ca"), "-X", method, "-w", "\n%{http_code}"])
            .args(["-H", &format!("Authorization: Bearer {}", self.value("token"))])
            .args(["-H", &format!("Content-Type: {content}"), "--data-binary", "@-"])
            .arg(format!("{}{path}", self.value("api")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("curl is installed");
        let text = body.map(Value::to_string).unwrap_or_default();
        child.stdin.take().expect("stdin").write_all(text.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("wait");
        let text = String::from_utf8_lossy(&output.stdout);
        let (body, status) = text.rsplit_once('\n').unwrap_or_default();
        (status.parse().unwrap_or(0), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn succeed(&self, method: &str, path: &str, content: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.request(method, path, content, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// GET of what must be there.
    pub fn get(&self, path: &str) -> Value {
        self.succeed("GET", path, "application/json", None)
    }

    /// GET of what may be there, from a server that may be down.
    pub fn find(&self, path: &str) -> Option<Value> {
        let (status, answer) = self.request("GET", path, "application/json", None);
        (status == 200).then_some(answer)
    }

    /// POST.
    pub fn create(&self, path: &str, object: &Value) -> Value {
        self.succeed("POST", path, "application/json", Some(object))
    }

    /// PATCH of the given fields; lists are replaced.
    pub fn patch(&self, path: &str, fields: &Value) -> Value {
        self.succeed("PATCH", path, "application/merge-patch+json", Some(fields))
    }

    /// PUT.
    pub fn replace(&self, path: &str, object: &Value) -> Value {
        self.succeed("PUT", path, "application/json", Some(object))
    }

    /// DELETE; what is not there any more is fine.
    pub fn delete(&self, path: &str) {
        let (status, answer) = self.request("DELETE", path, "application/json", None);
        assert!((200..300).contains(&status) || status == 404, "DELETE {path}: {status} {answer}");
    }
}
