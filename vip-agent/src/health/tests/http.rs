//! Servers that answer, each in its own way.

use super::*;

pub(super) fn check(url: &str) -> CheckConfig {
    super::check(Target::Http {
        url: url.to_owned(),
        ca: None,
        status: None,
    })
}

/// A server that answers every request with this.
fn serve_text(answer: &'static [u8]) -> String {
    let port = serve(move |mut stream| {
        read_request(&mut stream);
        // Who asked may have hung up.
        let _ = stream.write_all(answer);
    });
    format!("http://127.0.0.1:{port}/")
}

#[test]
fn the_status_decides() {
    for (answer, wanted, expected) in [
        ("200 OK", None, Ok(())),
        ("204 No Content", None, Ok(())),
        ("299 Whatever", None, Ok(())),
        (
            "500 Oops",
            None,
            Err("it answers 500 Internal Server Error"),
        ),
        ("404 Not Found", None, Err("it answers 404 Not Found")),
        (
            "302 Found\r\nLocation: /elsewhere",
            None,
            Err("it answers 302 Found (a redirection, which is not followed)"),
        ),
        ("401 Unauthorized", Some(401), Ok(())),
        ("200 OK", Some(204), Err("it answers 200 OK, not 204")),
        // A first word that is not the last (RFC 9110 §15.2).
        ("100 Continue\r\n\r\nHTTP/1.1 200 OK", None, Ok(())),
    ] {
        let text = format!("HTTP/1.1 {answer}\r\nContent-Length: 3\r\n\r\nabc");
        let url = serve_text(text.leak().as_bytes());
        let result = first(super::check(Target::Http {
            url,
            ca: None,
            status: wanted,
        }));
        assert_eq!(result, expected.map_err(str::to_owned), "{answer}");
    }
}

#[test]
fn what_is_asked_for_is_the_path_of_the_url() {
    let (sender, requests) = blocking::channel();
    let port = serve(move |mut stream| {
        let _ = sender.send(read_request(&mut stream));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    });
    for (path, line) in [
        ("/a/b?c=d", "GET /a/b?c=d HTTP/1.1"),
        ("", "GET / HTTP/1.1"),
    ] {
        assert_eq!(
            first(check(&format!("http://localhost:{port}{path}"))),
            Ok(())
        );
        let request = requests.recv_timeout(PATIENCE).expect("a request");
        assert!(request.starts_with(&format!("{line}\r\n")), "{request}");
        assert!(
            request.contains(&format!("host: localhost:{port}\r\n")),
            "{request}"
        );
    }
}

#[test]
fn what_is_no_answer_is_told_as_what_it_is() {
    let long_head: &[u8] = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "a".repeat(1 << 20))
        .leak()
        .as_bytes();
    for (answer, expected) in [
        (
            &b"garbage, and a line end\r\n\r\n"[..],
            "what it answers is no HTTP",
        ),
        (
            b"\x15\x03\x01\x00\x02\x02\x46",
            "if it speaks TLS, write https",
        ),
        (b"", "it hangs up instead of an answer"),
        (b"HTTP/1.1 200 O", "it hangs up instead of an answer"),
        (long_head, "what it answers is no HTTP"),
    ] {
        let why = first(check(&serve_text(answer))).expect_err("it is no answer");
        assert!(why.contains(expected), "{why}");
    }
}

/// A server that sends this byte by byte, the next one before any timeout for the byte alone would strike.
fn serve_slowly(answer: &'static [u8]) -> String {
    let port = serve(move |mut stream| {
        thread::spawn(move || {
            read_request(&mut stream);
            for byte in answer {
                thread::sleep(SHORT / 10);
                if stream.write_all(&[*byte]).is_err() {
                    break;
                }
            }
        });
    });
    format!("http://127.0.0.1:{port}/")
}

#[test]
fn the_timeout_is_of_the_whole_exchange() {
    let silent = format!("http://127.0.0.1:{}/", serve_in_silence());
    for url in [silent, serve_slowly(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n")] {
        let begun = Instant::now();
        let result = first(CheckConfig {
            timeout: SHORT,
            ..check(&url)
        });
        assert_eq!(result, Err("no answer within 300ms".to_owned()), "{url}");
        assert!(begun.elapsed() >= SHORT);
    }
}

#[test]
fn a_body_without_end_is_not_waited_for() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
    let mut kept = Vec::new();
    let port = serve(move |mut stream| {
        read_request(&mut stream);
        let _ = stream.write_all(HEAD);
        kept.push(stream);
    });
    assert_eq!(first(check(&format!("http://127.0.0.1:{port}/"))), Ok(()));
}
