//! The kernel modules that the tests need, and what these need.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::failed;
use crate::run::Failure;

/// What a stock kernel may have as a module: a virtio NIC, what an interface can be, TC filters, and the look-up of
/// sockets.
const WANTED: &[&str] = &[
    "virtio_pci",
    "virtio_net",
    "veth",
    "bridge",
    "macvlan",
    "8021q",
    "bonding",
    "sch_ingress",
    "cls_bpf",
    "cls_u32",
    "cls_matchall",
    "act_vlan",
    "tcp_diag",
    "udp_diag",
];

/// Names and contents, each after those that it depends on. What the kernel has built in is not among them.
pub fn load_order(folder: &Path) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut files = BTreeMap::new();
    find(folder, &mut files)?;
    let mut order = Vec::new();
    for name in WANTED {
        add(name, &files, &mut order)?;
    }
    Ok(order)
}

fn add(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    order: &mut Vec<(String, Vec<u8>)>,
) -> Result<(), Failure> {
    let Some(file) = files.get(name) else {
        return Ok(());
    };
    if order.iter().any(|(before, _)| before == name) {
        return Ok(());
    }
    let module = read(file)?;
    for dependency in depends(&module) {
        add(&dependency, files, order)?;
    }
    order.push((name.to_owned(), module));
    Ok(())
}

/// All modules below a folder, by the name that the kernel knows them by.
fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<(), Failure> {
    let entries = fs::read_dir(folder).map_err(|error| failed("read", folder, &error))?;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() && !path.is_symlink() {
            find(&path, files)?;
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && let Some((name, _)) = name.split_once(".ko")
        {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// Newer packages have them compressed.
fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    if file.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(file).map_err(|error| failed("read", file, &error));
    }
    let output = Command::new("xz")
        .arg("-dc")
        .arg(file)
        .output()
        .map_err(|error| failed("run xz on", file, &error))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(Failure::new(format!(
            "test-kernels: xz cannot read {}",
            file.display()
        )))
    }
}

/// The modules that a module says it depends on: `depends=a,b` among the strings of its section `.modinfo`, each of
/// which ends with a zero byte.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next();
    let value = String::from_utf8_lossy(value.unwrap_or_default());
    let names = value.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_tells_what_it_depends_on() {
        let module = b"\x7fELF...\0license=GPL\0depends=stp,llc,x-y\0name=bridge\0";
        assert_eq!(depends(module), ["stp", "llc", "x_y"]);
        assert!(depends(b"\0license=GPL\0depends=\0name=llc\0").is_empty());
        assert!(depends(b"no module").is_empty());
    }
}
