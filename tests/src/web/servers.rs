//! The servers, all with the same page.

use crate::hosts::{Host, Started, TwoHosts};
use crate::workload::SOURCES;
use crate::{go, place, wait};
use anyhow::{Context, Result, ensure};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use std::fs;
use std::path::PathBuf;

use super::{PORT, TLS_PORT};

/// A file that both hosts have.
#[derive(Debug)]
pub struct Page {
    directory: PathBuf,
}

impl Page {
    pub fn new(hosts: &TwoHosts) -> Result<Self> {
        let directory = hosts.shared().join("web");
        fs::create_dir_all(&directory)?;
        let lines = (0..200).map(|number| format!("line {number} of the page\n"));
        fs::write(directory.join("page"), lines.collect::<String>())?;
        Ok(Self { directory })
    }

    pub fn path(&self) -> Result<String> {
        place::text(&self.directory.join("page"))
    }
}

/// With two workers.
pub fn nginx(host: &Host, page: &Page) -> Result<Started> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["service".to_owned()])?;
    fs::write(page.directory.join("certificate"), cert.pem())?;
    fs::write(page.directory.join("key"), signing_key.serialize_pem())?;
    let directory = place::text(&page.directory)?;
    fs::write(page.directory.join("nginx.conf"), configuration(&directory))?;
    let server = host.spawn(&["nginx", "-e", "stderr", "-p", &directory, "-c", "nginx.conf"])?;
    listens(host, server)
}

/// It speaks HTTP with whoever comes for as long as he likes. Its directories for what it receives stand
/// where both hosts have them.
fn configuration(directory: &str) -> String {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let places = kinds.map(|kind| format!("  {kind}_temp_path {directory}/{kind};\n")).concat();
    format!(
        "daemon off;\nuser root;\nworker_processes 2;\npid {directory}/pid;\nerror_log stderr;\n\
         events {{ worker_connections 1000; }}\nhttp {{\n  access_log off;\n  sendfile on;\n\
         keepalive_requests 1000000000;\n{places}  server {{\n    root {directory};\n\
         listen {PORT};\n    listen [::]:{PORT};\n    listen {TLS_PORT} ssl;\n\
         listen [::]:{TLS_PORT} ssl;\n    ssl_certificate {directory}/certificate;\n\
         ssl_certificate_key {directory}/key;\n  }}\n}}\n"
    )
}

pub fn node(host: &Host, page: &Page) -> Result<Started> {
    let program = format!("{SOURCES}/web_server.js");
    let server = host.spawn(&["node", &program, &PORT.to_string(), &page.path()?])?;
    listens(host, server)
}

/// `None` without a Go compiler.
pub fn go(host: &Host, page: &Page) -> Result<Option<Started>> {
    let Some(program) = go::program("web_server")? else { return Ok(None) };
    let server = host.spawn(&[&program, &PORT.to_string(), &page.path()?])?;
    listens(host, server).map(Some)
}

fn listens(host: &Host, server: Started) -> Result<Started> {
    let listening = format!(":{PORT:04X} ");
    wait::until(
        wait::PATIENCE,
        || format!("process {} to listen at port {PORT}", server.pid),
        || {
            let said = || fs::read_to_string(&server.stderr).unwrap_or_default();
            ensure!(host.exists(server.pid), "the server ended: {}", said());
            let sockets = ["/proc/net/tcp", "/proc/net/tcp6"];
            let sockets = host.run(&["cat", sockets[0], sockets[1]])?.success()?;
            Ok(sockets.contains(&listening).then_some(()))
        },
    )
    .context("start a web server")?;
    Ok(server)
}
