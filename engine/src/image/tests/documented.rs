//! `docs/image.proto` has every message of an image, with the tags that are written.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const DOCUMENTED: &str = include_str!("../../../../docs/image.proto");

/// Readers of a part of another message, and what stands in a journal.
const OTHERS: [&str; 6] = ["Named", "Names", "NamedEnd", "Assigned", "Cable", "Held"];

/// The fields of a message, by their tags.
type Fields = BTreeSet<(String, String)>;

fn documented() -> BTreeSet<Fields> {
    let messages = DOCUMENTED.split("\nmessage ").skip(1);
    let fields = |message: &str| {
        let body = message.split_once("\n}").map_or(message, |(body, _)| body);
        // Those of a oneof stand further in.
        let lines = body.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let fields = lines.filter_map(|line| {
            let (head, tag) = line.strip_suffix(';')?.split_once(" = ")?;
            Some((head.rsplit(' ').next()?.to_owned(), tag.to_owned()))
        });
        fields.collect()
    };
    messages.map(fields).collect()
}

/// Of every struct of a source file that is a message.
fn written(source: &str) -> Vec<(String, Fields)> {
    let mut messages = Vec::new();
    for after in source.split("prost::Message)]\n").skip(1) {
        let (head, rest) = after.split_once('{').unwrap_or_default();
        let name = head.rsplit("struct ").next().unwrap_or_default().trim().to_owned();
        let is_empty = rest.starts_with('}');
        let body = rest.split_once("\n}").filter(|_| !is_empty).map_or("", |(body, _)| body);
        let (mut fields, mut tag) = (Fields::new(), None);
        for line in body.lines().map(str::trim) {
            if line.starts_with("#[prost(") {
                let (_, after) = line.split_once("tag = \"").unwrap_or_default();
                tag = after.split_once('"').map(|(tag, _)| tag.to_owned());
            } else if !line.starts_with("//") {
                let name = line.split(':').next().and_then(|head| head.rsplit(' ').next());
                fields.extend(name.map(str::to_owned).zip(tag.take()));
            }
        }
        messages.push((name, fields));
    }
    messages
}

fn sources(directory: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "tests") {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_message_is_documented_with_its_tags() {
    let mut all = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    let documented = documented();
    let written: Vec<_> = all.iter().flat_map(|source| written(source)).collect();
    let written = written.iter().filter(|(name, _)| !OTHERS.contains(&name.as_str()));
    let missing: Vec<_> = written.clone().filter(|(_, one)| !documented.contains(one)).collect();
    assert!(missing.is_empty(), "not in docs/image.proto: {missing:#?}");
    assert!(written.count() > 80, "some were not found");
}
