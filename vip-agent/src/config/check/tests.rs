//! What is read of health checks, and the line that each bad one gets.

use std::fs;

use super::*;
use crate::config::{Config, FileConfig, Flags, VipConfig};

/// A file whose line 5 says `health` of an interface, or of its shared IP.
fn read(health: &str) -> Result<Config, ConfigError> {
    let path = Path::new("a.yaml");
    let text = format!(
        "etcd:\n  endpoints: [http://10.0.0.11:2379]\ninterfaces:\n  - interface: eth0\n    health: {health}\n    \
         vip: {{ ip: 10.0.0.100 }}\n"
    );
    let file: FileConfig = file::parse(path, &text)?;
    Config::from_parts(path, file, &Flags::default())
}

/// The checks of the first shared IP.
fn read_good(health: &str) -> Vec<CheckConfig> {
    let config = read(health).unwrap_or_else(|error| panic!("{health}: {error}"));
    let [VipConfig { health, .. }] = &config.interfaces[0].vips[..] else {
        panic!("one shared IP is configured");
    };
    health.iter().cloned().collect()
}

fn tcp(host: &str, port: u16) -> CheckConfig {
    CheckConfig::new(Target::Tcp {
        host: host.to_owned(),
        port,
    })
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_good_check_says_what_it_says() {
    for (written, expected, shown) in [
        (
            "[{ tcp: 127.0.0.1:6443 }]",
            tcp("127.0.0.1", 6443),
            "tcp 127.0.0.1:6443",
        ),
        ("[{ tcp: '[::1]:80' }]", tcp("::1", 80), "tcp [::1]:80"),
        (
            "[{ tcp: db:5432, interval: 500ms, timeout: 200ms, rise: 1, fall: 5 }]",
            CheckConfig {
                interval: ms(500),
                timeout: ms(200),
                rise: 1,
                fall: 5,
                ..tcp("db", 5432)
            },
            "tcp db:5432",
        ),
        // The time that a check may take is cut to the interval where nothing is said of it.
        (
            "[{ tcp: db:5432, interval: 300ms }]",
            CheckConfig {
                interval: ms(300),
                timeout: ms(300),
                ..tcp("db", 5432)
            },
            "tcp db:5432",
        ),
        (
            "[{ http: 'http://[::1]/a?b=c', status: 204 }]",
            CheckConfig::new(Target::Http {
                url: "http://[::1]/a?b=c".to_owned(),
                ca: None,
                status: Some(204),
            }),
            "http http://[::1]/a?b=c",
        ),
        (
            "[{ exec: [/bin/sh, -c, 'exit 0'] }]",
            CheckConfig::new(Target::Exec(
                ["/bin/sh", "-c", "exit 0"].map(str::to_owned).into(),
            )),
            "exec /bin/sh -c exit 0",
        ),
    ] {
        let read = read_good(written);
        assert_eq!(read, [expected], "{written}");
        assert_eq!(read[0].to_string(), shown);
    }
}

#[test]
fn https_goes_with_a_file_of_certificates() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let ca = file.path().display();
    let written = format!("[{{ http: 'https://10.0.0.11:6443/livez', ca: {ca} }}]");
    let refused = read(&written).expect_err("it is empty").to_string();
    assert!(
        refused.ends_with("holds no certificate in PEM"),
        "{refused}"
    );
    fs::write(file.path(), "-----BEGIN CERTIFICATE-----\n").expect("it can be written");
    let expected = CheckConfig::new(Target::Http {
        url: "https://10.0.0.11:6443/livez".to_owned(),
        ca: Some(file.path().to_owned()),
        status: None,
    });
    assert_eq!(read_good(&written), [expected]);
}

#[test]
fn a_shared_ip_has_its_interfaces_checks_and_its_own() {
    let path = Path::new("a.yaml");
    let text = "etcd: { endpoints: [http://10.0.0.11:2379] }\n\
                interfaces:\n- interface: eth0\n  health: [{ tcp: a:1 }]\n  vips:\n  \
                - { ip: 10.0.0.7, health: [{ tcp: b:1 }, { tcp: a:1 }] }\n  - { ip: 10.0.0.8 }\n";
    let file = file::parse(path, text).expect("it can be parsed");
    let config = Config::from_parts(path, file, &Flags::default()).expect("it is good");
    let health: Vec<Vec<CheckConfig>> = config.interfaces[0]
        .vips
        .iter()
        .map(|vip| vip.health.iter().cloned().collect())
        .collect();
    assert_eq!(health, [vec![tcp("a", 1), tcp("b", 1)], vec![tcp("a", 1)]]);
}

#[test]
fn each_mistake_gets_a_line_with_its_place_and_its_mend() {
    for (written, line) in [
        (
            "[{}]",
            "a.yaml:5:14: health check: it does not say what to try; give one of `tcp: HOST:PORT`, `http: URL`, \
             `exec: [/PROGRAM, …]`",
        ),
        (
            "[{ tcp: a:1, exec: [/bin/true] }]",
            "a.yaml:5:14: health check: `tcp`, `http` and `exec` are a check each; write `- ` before each of them",
        ),
        (
            "{ tcp: a:1 }",
            "a.yaml:5:13: expected a list, such as [a, b], in `health: { tcp: a:1 }`; write \
             `health: [{ tcp: 127.0.0.1:6443 }]`",
        ),
        (
            "[{ tpc: a:1 }]",
            "a.yaml:5:16: unknown key `tpc`; did you mean `tcp`? known here: tcp, http, exec, ca, status, interval, \
             timeout, rise, fall",
        ),
        (
            "[{ tcp: 6443 }]",
            "a.yaml:5:21: tcp `6443`: write HOST:PORT, such as 127.0.0.1:6443 or [::1]:6443",
        ),
        (
            "[{ tcp: '::1:6443' }]",
            "a.yaml:5:21: tcp `::1:6443`: write HOST:PORT, such as 127.0.0.1:6443 or [::1]:6443",
        ),
        (
            "[{ tcp: a:0 }]",
            "a.yaml:5:21: tcp `a:0`: write HOST:PORT, such as 127.0.0.1:6443 or [::1]:6443",
        ),
        (
            "[{ tcp: 10.0.0.100:80 }]",
            "a.yaml:5:14: health check `tcp 10.0.0.100:80`: 10.0.0.100 is a shared IP, which its owner alone reaches \
             here, so no other node could be fit; name an address of this machine's own",
        ),
        (
            "[{ http: 'http://10.0.0.100/' }]",
            "a.yaml:5:14: health check `http http://10.0.0.100/`: 10.0.0.100 is a shared IP, which its owner alone \
             reaches here, so no other node could be fit; name an address of this machine's own",
        ),
        (
            "[{ http: localhost/livez }]",
            "a.yaml:5:22: http `localhost/livez`: write http://HOST:PORT/PATH or https://HOST:PORT/PATH",
        ),
        (
            "[{ http: 'ftp://a/' }]",
            "a.yaml:5:22: http `ftp://a/`: write http://HOST:PORT/PATH or https://HOST:PORT/PATH",
        ),
        (
            "[{ http: 'http://a/b c' }]",
            "a.yaml:5:22: http `http://a/b c`: write http://HOST:PORT/PATH or https://HOST:PORT/PATH",
        ),
        (
            "[{ http: 'http://me@a/' }]",
            "a.yaml:5:22: http `http://me@a/`: a user in it is not sent; leave that away",
        ),
        (
            "[{ http: 'https://a/' }]",
            "a.yaml:5:22: http `https://a/`: https needs `ca`, a file with who signed the server's certificate",
        ),
        (
            "[{ http: 'https://a/', ca: /no/such/file }]",
            "a.yaml:5:40: `/no/such/file` cannot be read: No such file or directory (os error 2)",
        ),
        (
            "[{ http: 'http://a/', ca: /etc/ca.crt }]",
            "a.yaml:5:39: ca `/etc/ca.crt`: `http` is without TLS; write https, or leave `ca` away",
        ),
        (
            "[{ tcp: a:1, ca: /etc/ca.crt }]",
            "a.yaml:5:30: health check: `ca` and `status` go with `http`",
        ),
        (
            "[{ http: 'http://a/', status: 2xx }]",
            "a.yaml:5:43: status `2xx`: write one of 200 to 599; without it 200 to 299 are good",
        ),
        (
            "[{ http: 'http://a/', status: 100 }]",
            "a.yaml:5:43: status `100`: write one of 200 to 599; without it 200 to 299 are good",
        ),
        (
            "[{ exec: [] }]",
            "a.yaml:5:14: exec: it names no program; write exec: [/PROGRAM, ARGUMENT, …]",
        ),
        (
            "[{ exec: /bin/true }]",
            "a.yaml:5:22: expected a list, such as [a, b], in `health: [{ exec: /bin/true }]`; write \
             `exec: [/usr/local/bin/check, --fast]`",
        ),
        (
            "[{ exec: [check] }]",
            "a.yaml:5:23: exec `check`: write the program's whole path, such as /usr/local/bin/attach",
        ),
        (
            "[{ exec: [/no/such/file] }]",
            "a.yaml:5:23: exec `/no/such/file`: it cannot be run: No such file or directory (os error 2)",
        ),
        (
            "[{ exec: [/etc/passwd] }]",
            "a.yaml:5:23: exec `/etc/passwd`: it is not executable; `chmod +x /etc/passwd`",
        ),
        (
            "[{ exec: [/etc] }]",
            "a.yaml:5:23: exec `/etc`: it is no file; name a program",
        ),
        (
            "[{ tcp: a:1, interval: 1 }]",
            "a.yaml:5:36: interval `1`: write a time with its unit, such as 1s or 500ms",
        ),
        (
            "[{ tcp: a:1, interval: 10ms }]",
            "a.yaml:5:36: interval `10ms`: write 100ms to 1h",
        ),
        (
            "[{ tcp: a:1, interval: 2h }]",
            "a.yaml:5:36: interval `2h`: write 100ms to 1h",
        ),
        (
            "[{ tcp: a:1, timeout: 0s }]",
            "a.yaml:5:35: timeout `0s`: write 10ms or more",
        ),
        (
            "[{ tcp: a:1, timeout: 5s }]",
            "a.yaml:5:35: timeout `5s`: it is over the interval of 1s, at whose end the next one starts; write 1s or \
             less, or give a longer `interval`",
        ),
        (
            "[{ tcp: a:1, rise: 0 }]",
            "a.yaml:5:32: rise `0`: write how many in a row, 1 to 100",
        ),
        (
            "[{ tcp: a:1, fall: +3 }]",
            "a.yaml:5:32: fall `+3`: write how many in a row, 1 to 100",
        ),
        (
            "[{ tcp: a:1, fall: 300 }]",
            "a.yaml:5:32: fall `300`: write how many in a row, 1 to 100",
        ),
    ] {
        let error = read(written).expect_err(written).to_string();
        assert_eq!(error, line, "{written}");
    }
}

#[test]
fn a_check_that_stands_elsewhere_is_told_where_it_belongs() {
    let path = Path::new("a.yaml");
    let error = file::parse(path, "tcp: a:1\n").expect_err("it is at the top");
    let error = error.to_string();
    assert!(
        error.contains("it belongs under `health`: `health: [{ tcp: 127.0.0.1:6443 }]`"),
        "{error}"
    );
}
