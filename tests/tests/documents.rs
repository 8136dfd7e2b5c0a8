//! What the documents name as proof is there.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv6Addr;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Those that name tests.
const DOCUMENTS: [&str; 2] = ["docs/guarantees.md", "docs/neighbours.md"];

#[test]
fn every_test_that_a_document_names_exists() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the workspace")?;
    let mut tests = BTreeSet::new();
    for folder in ["vip-common", "vip-agent", "tests"] {
        collect(&root.join(folder), &mut tests)?;
    }
    let mut named = 0;
    let mut missing = Vec::new();
    for document in DOCUMENTS {
        let text = fs::read_to_string(root.join(document))?;
        for name in text.split('`').skip(1).step_by(2) {
            let Some((file, test)) = name.rsplit_once("::") else {
                continue;
            };
            // Addresses look alike, and one is how names are made up.
            if name.parse::<Ipv6Addr>().is_ok() || file == "file" {
                continue;
            }
            // An ellipsis stands for some of a long name.
            let parts: Vec<&str> = test.split('…').collect();
            let exists = tests.iter().any(|name| match parts[..] {
                [whole] => name == whole,
                [start, end] => name.starts_with(start) && name.ends_with(end),
                _ => false,
            });
            let is_module = tests.contains(&format!("mod {test}"));
            if !exists && !is_module {
                missing.push(format!("{document}: {name}"));
            }
            named += 1;
        }
    }
    ensure!(missing.is_empty(), "there are no such tests: {missing:#?}");
    ensure!(named > 40, "only {named} names were found");
    Ok(())
}

/// The names of all functions, and of all modules with `mod ` before them.
fn collect(folder: &Path, names: &mut BTreeSet<String>) -> Result<()> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    for path in entries.iter().map(fs::DirEntry::path) {
        if path.is_dir() {
            collect(&path, names)?;
        } else if is_rust(&path) {
            let text = fs::read_to_string(&path)?;
            for line in text.lines().map(str::trim_start) {
                let line = line.strip_prefix("async ").unwrap_or(line);
                if let Some(rest) = line.strip_prefix("fn ") {
                    names.extend(identifier(rest).map(str::to_owned));
                } else if let Some(rest) = line.strip_prefix("mod ") {
                    names.extend(identifier(rest).map(|name| format!("mod {name}")));
                }
            }
        }
    }
    Ok(())
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

fn identifier(text: &str) -> Option<&str> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    text.get(..end).filter(|name| !name.is_empty())
}
