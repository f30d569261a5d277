//! Imports inside a folder run one way too: no two of its modules need each other. In the folders
//! of [`DOORS`], the modules do not need the definitions of the folder's door either. A name that
//! `mod.rs` only re-exports counts as imported from where it is defined.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Source,
    paths::{ItemPath, paths_in},
};

/// Folders of `src/` in which the door is above all other modules, and the modules that are the
/// door together with `mod.rs`.
const DOORS: [(&str, &[&str]); 2] = [
    ("counter", &["dead_letters", "forget", "lists", "reads", "recording", "writes"]),
    ("http", &[]),
];

/// Stands for the door of a folder among its modules.
const DOOR: &str = "the door";

/// A module with the paths that it names in others, and the names that its `use` makes available.
struct Module<'a> {
    path: ItemPath<'a>,
    imports: Vec<ItemPath<'a>>,
}

impl<'a> Module<'a> {
    fn of(source: &'a Source) -> Self {
        let file = source.path["src/".len()..].trim_end_matches(".rs");
        let mut path: ItemPath<'a> = file.split('/').collect();
        if ["mod", "lib", "main"].contains(path.last().unwrap()) {
            path.pop();
        }
        let mut imports = Vec::new();
        for relative in paths_in(&source.text) {
            imports.extend(absolute(&path, &relative));
        }
        Self { path, imports }
    }
}

/// A path from the root of the crate.
fn absolute<'a>(module: &ItemPath<'a>, path: &ItemPath<'a>) -> Option<ItemPath<'a>> {
    let mut base = if path[0] == "crate" { Vec::new() } else { module.clone() };
    for segment in path {
        match *segment {
            "super" => drop(base.pop()?),
            "crate" | "self" => {}
            name => base.push(name),
        }
    }
    Some(base)
}

/// The imports between a folder's modules: by name, each with the path that imports it.
type Edges<'a> = BTreeMap<&'a str, BTreeMap<&'a str, String>>;

fn edges<'a>(folder: &ItemPath<'a>, modules: &'a [Module<'a>], at_door: &[&str]) -> Edges<'a> {
    let door = modules.iter().find(|module| module.path == *folder);
    let children: BTreeSet<&str> = modules
        .iter()
        .filter(|module| module.path.starts_with(folder))
        .filter_map(|module| module.path.get(folder.len()).copied())
        .collect();
    let mut edges = Edges::new();
    for module in modules {
        let Some(child) = module.path.strip_prefix(folder.as_slice()).and_then(|p| p.first())
        else {
            continue;
        };
        if at_door.contains(child) {
            continue;
        }
        for import in &module.imports {
            let Some([name, ..]) = import.strip_prefix(folder.as_slice()) else { continue };
            let target = if at_door.contains(name) {
                DOOR
            } else if children.contains(name) {
                name
            } else {
                match door.map(|door| re_exported(folder, door, name, &children)) {
                    Some(Some(target)) => target,
                    // Imported by the door from elsewhere.
                    Some(None) if door.is_some_and(|door| is_imported(door, name)) => continue,
                    _ => DOOR,
                }
            };
            if target != *child {
                let named = format!("{} names {}", module.path.join("::"), import.join("::"));
                edges.entry(*child).or_default().entry(target).or_insert(named);
            }
        }
    }
    edges
}

/// Returns the module of a folder from which its `mod.rs` re-exports a name.
fn re_exported<'a>(
    folder: &ItemPath<'a>,
    door: &Module<'a>,
    name: &str,
    children: &BTreeSet<&'a str>,
) -> Option<&'a str> {
    door.imports.iter().find_map(|import| {
        let inside = import.strip_prefix(folder.as_slice())?;
        let is_named = inside.len() > 1 && inside.last() == Some(&name);
        let module = children.get(inside[0]).copied();
        module.filter(|_| is_named)
    })
}

fn is_imported(door: &Module<'_>, name: &str) -> bool {
    door.imports.iter().any(|import| import.last() == Some(&name))
}

/// Returns a path from a module through imports back to itself, or to the folder's door.
fn upward<'a>(edges: &Edges<'a>) -> Option<Vec<String>> {
    fn walk<'a>(
        edges: &Edges<'a>,
        from: &'a str,
        way: &mut Vec<(&'a str, String)>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(at) = way.iter().position(|(module, _)| *module == from) {
            return Some(way[at..].iter().map(|(_, named)| named.clone()).collect());
        }
        if !done.insert(from) {
            return None;
        }
        for (target, named) in edges.get(from)? {
            if *target == DOOR {
                return Some(vec![named.clone()]);
            }
            way.push((from, named.clone()));
            if let Some(found) = walk(edges, target, way, done) {
                return Some(found);
            }
            way.pop();
        }
        None
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|module| walk(edges, module, &mut Vec::new(), &mut done))
}

#[test]
fn imports_inside_a_folder_run_one_way() {
    let sources = Source::all("src/", &["rs"]);
    let modules: Vec<Module<'_>> = sources.iter().map(Module::of).collect();
    let mut folders: BTreeSet<ItemPath<'_>> =
        modules.iter().map(|module| module.path[..module.path.len().max(1) - 1].to_vec()).collect();
    folders.remove(&Vec::new());
    let mut faults = Vec::new();
    for folder in folders {
        let door = DOORS.iter().find(|(name, _)| *name == folder.join("/"));
        let mut edges = edges(&folder, &modules, door.map_or(&[], |(_, modules)| *modules));
        if door.is_none() {
            edges.values_mut().for_each(|targets| drop(targets.remove(DOOR)));
        }
        if let Some(way) = upward(&edges) {
            faults.push(format!("src/{}: {}", folder.join("/"), way.join(", ")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn imports_that_go_in_circles_are_found() {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let found = |sources: &[Source]| {
        let modules: Vec<Module<'_>> = sources.iter().map(Module::of).collect();
        upward(&edges(&vec!["f"], &modules, &["writes"]))
    };
    let door = source("src/f/mod.rs", "mod a;\nmod b;\npub use self::a::A;\npub struct Own;\n");
    let a = source("src/f/a.rs", "pub struct A;\n");
    let b = source("src/f/b.rs", "use super::{A, a::A as Same};\n");
    assert_eq!(found(&[door, a, b]), None);

    let door = source("src/f/mod.rs", "mod a;\npub struct Own;\n");
    let a = source("src/f/a/x.rs", "use crate::f::Own;\n");
    assert_eq!(found(&[door, a]), Some(vec!["f::a::x names f::Own".to_owned()]));

    let writes = source("src/f/writes.rs", "use super::{Own, a::A};\n");
    let a = source("src/f/a/mod.rs", "use crate::f::writes::W;\n");
    assert_eq!(found(&[writes, a]), Some(vec!["f::a names f::writes::W".to_owned()]));

    let a = source("src/f/a.rs", "use super::b::B;\n");
    let b = source("src/f/b/mod.rs", "use crate::f::a::A;\n");
    let circle = ["f::a names f::b::B", "f::b names f::a::A"].map(str::to_owned);
    assert_eq!(found(&[a, b]), Some(circle.to_vec()));
}
