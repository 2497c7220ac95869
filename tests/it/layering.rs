//! Who may import whom: the `use` lines of the code against the table in ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The rows "| `module` | `other`, `another` |" below the heading "Who may import whom".
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(format!("{ROOT}/ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let (_, table) = text.split_once("## Who may import whom").expect("the table's heading");
    let mut rows = BTreeMap::new();
    for line in table.lines().take_while(|line| !line.starts_with("## ")) {
        let cells: Vec<&str> = line.split('|').collect();
        let [_, module, imports, ..] = cells[..] else { continue };
        let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let [module] = &names(module)[..] else { continue };
        rows.insert(module.clone(), names(imports).into_iter().collect());
    }
    assert!(rows.len() > 8, "the table was not understood: {rows:?}");
    rows
}

fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder of the project") {
        let path = entry.expect("an entry").path();
        // Tests may look anywhere.
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The first segments of all `crate::…` paths in a file, comments left out.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.insert(name);
        }
    }
    found
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let allowed = allowed();
    let src = Path::new(ROOT).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut faults = Vec::new();
    for file in files {
        let inner = file.strip_prefix(&src).expect("below src");
        let module = inner.iter().next().expect("a name").to_string_lossy().trim_end_matches(".rs").to_owned();
        if module == "lib" || module == "main" {
            continue;
        }
        let Some(may) = allowed.get(&module) else {
            faults.push(format!("{module} is not in the table"));
            continue;
        };
        for import in imports(&std::fs::read_to_string(&file).expect("a source file")) {
            let known = src.join(&import).is_dir() || src.join(format!("{import}.rs")).is_file();
            if known && import != module && !may.contains(&import) {
                faults.push(format!("{} imports {import}", inner.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn sinks_know_the_contract_and_nothing_else_of_ours() {
    for entry in std::fs::read_dir(format!("{ROOT}/sinks")).unwrap() {
        let manifest = entry.unwrap().path().join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest).unwrap();
        let table: toml::Table = text.parse().unwrap();
        let dependencies = table["dependencies"].as_table().unwrap();
        for name in dependencies.keys() {
            assert!(name != "trunkline", "{} imports the gateway", manifest.display());
            assert!(name == "sink-api" || !name.starts_with("sink-"), "{} imports {name}", manifest.display());
        }
    }
}
