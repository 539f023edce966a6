//! Which file of the hub uses which: read from the sources, for the rules of `tidy`.
//!
//! A file uses another when a path in it ends at something that the other defines. What a module hands on (`pub use`) is
//! followed to where it is defined, and does not count as a use by the one that hands it on: a door, not an arrow. Unit
//! tests are left out, and so is what only macros have.

use std::collections::{BTreeMap, BTreeSet};

use syn::{Item, UseTree, visit::Visit};

/// Each file, and the files it uses.
pub type Graph = BTreeMap<String, BTreeSet<String>>;

/// A module, as `["edge", "grpc"]`.
type Place = Vec<String>;

#[derive(Debug, Default)]
struct Module {
    file: String,
    /// Names that stand for something elsewhere, with the path that leads there.
    names: BTreeMap<String, Vec<String>>,
    /// Paths whose every name counts as one of this module.
    globs: Vec<Vec<String>>,
    /// Every path that is used.
    paths: BTreeSet<Vec<String>>,
    /// How many lines of `impl` each type has here.
    impls: BTreeMap<String, usize>,
    /// Modules in files of their own that are unit tests.
    tests: Vec<String>,
}

/// The sources of a crate, by their paths below `src`.
#[derive(Debug)]
pub struct Crate(BTreeMap<Place, Module>);

impl Crate {
    /// Reads sources, by path below `src`.
    pub fn parse(sources: &BTreeMap<String, String>) -> Self {
        let has_library = sources.contains_key("lib.rs");
        let mut modules = BTreeMap::new();
        for (file, text) in sources {
            let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
            let mut place: Place = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
            let is_root = if has_library { "lib.rs" } else { "main.rs" } == file;
            if is_root || place.last().is_some_and(|name| name == "mod") {
                place.pop();
            }
            let mut reader = Reader(Module { file: file.clone(), ..Module::default() });
            reader.visit_file(&parsed);
            modules.insert(place, reader.0);
        }
        let tests = |(place, module): (&Place, &Module)| module.tests.iter().map(|name| child(place, name)).collect();
        let tests: Vec<Vec<Place>> = modules.iter().map(tests).collect();
        modules.retain(|place, _| !tests.iter().flatten().any(|tests| place.starts_with(tests)));
        Self(modules)
    }

    /// The files each file uses.
    pub fn graph(&self) -> Graph {
        self.uses(false)
    }

    /// The same, where what another room hands on counts as its own.
    pub fn graph_of_rooms(&self) -> Graph {
        self.uses(true)
    }

    fn uses(&self, stops: bool) -> Graph {
        let uses = |(place, module): (&Place, &Module)| {
            let origin = if stops { place.first() } else { None };
            let found = module.paths.iter().filter_map(|path| self.file_of(place, path, origin, 0));
            (module.file.clone(), found.filter(|file| *file != module.file).collect())
        };
        self.0.iter().map(uses).collect()
    }

    /// The lines of `impl` of every type, over all the files of its room and below.
    pub fn impls(&self) -> BTreeMap<String, usize> {
        let mut all = BTreeMap::new();
        for (place, module) in &self.0 {
            for (name, lines) in &module.impls {
                let file =
                    self.file_of(place, std::slice::from_ref(name), None, 0).unwrap_or_else(|| module.file.clone());
                *all.entry(format!("{name} of {file}")).or_default() += lines;
            }
        }
        all
    }

    /// Where what a path leads to is defined; `None` outside the crate. With an origin, a path that has left it ends at what
    /// another room hands on.
    fn file_of(&self, from: &Place, path: &[String], origin: Option<&String>, depth: usize) -> Option<String> {
        // Names that stand for each other.
        if depth > 16 {
            return None;
        }
        let (mut at, mut rest) = match path.first()?.as_str() {
            "crate" => (Place::new(), &path[1..]),
            "self" => (from.clone(), &path[1..]),
            "super" => (from[..from.len().checked_sub(1)?].to_vec(), &path[1..]),
            name => {
                let module = self.0.get(from)?;
                let is_known = module.names.contains_key(name) || self.0.contains_key(&child(from, name));
                if !is_known && path.len() > 1 {
                    return None;
                }
                (from.clone(), path)
            }
        };
        while let Some((name, after)) = rest.split_first() {
            let module = self.0.get(&at)?;
            if name == "super" {
                at.pop()?;
            } else if self.0.contains_key(&child(&at, name)) {
                at.push(name.clone());
            } else if origin.is_some() && !at.is_empty() && at.first() != origin {
                return Some(module.file.clone());
            } else if let Some(alias) = module.names.get(name) {
                let path: Vec<String> = alias.iter().chain(after).cloned().collect();
                return self.file_of(&at, &path, origin, depth + 1);
            } else {
                let globbed = module.globs.iter().find_map(|glob| {
                    let path: Vec<String> = glob.iter().chain(rest).cloned().collect();
                    self.file_of(&at, &path, origin, depth + 1)
                });
                return Some(globbed.unwrap_or_else(|| module.file.clone()));
            }
            rest = after;
        }
        // A module itself: what is used of it has paths of its own.
        None
    }
}

fn child(place: &Place, name: &str) -> Place {
    place.iter().map(String::as_str).chain([name]).map(str::to_owned).collect()
}

struct Reader(Module);

impl Reader {
    fn add_use(&mut self, tree: &UseTree, before: &[String], hands_on: bool) {
        let with = |name: &syn::Ident| before.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
        match tree {
            UseTree::Path(path) => self.add_use(&path.tree, &with(&path.ident), hands_on),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(tree, before, hands_on)),
            UseTree::Name(name) if name.ident == "self" => {
                let last = before.last().expect("of something").clone();
                self.add_name(last, before.to_vec(), hands_on);
            }
            UseTree::Name(name) => self.add_name(name.ident.to_string(), with(&name.ident), hands_on),
            UseTree::Rename(rename) => self.add_name(rename.rename.to_string(), with(&rename.ident), hands_on),
            UseTree::Glob(_) => self.0.globs.push(before.to_vec()),
        }
    }

    fn add_name(&mut self, name: String, path: Vec<String>, hands_on: bool) {
        if path.first() == Some(&name) && path.len() == 1 {
            return;
        }
        if !hands_on {
            self.0.paths.insert(path.clone());
        }
        self.0.names.insert(name, path);
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            _ => &Vec::new(),
        };
        let is_test = |attribute: &syn::Attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
        };
        match item {
            Item::Mod(module) if attributes.iter().any(is_test) => self.0.tests.push(module.ident.to_string()),
            _ if attributes.iter().any(is_test) => {}
            item => syn::visit::visit_item(self, item),
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let hands_on = !matches!(item.vis, syn::Visibility::Inherited);
        self.add_use(&item.tree, &[], hands_on);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let (None, syn::Type::Path(of)) = (&item.trait_, &*item.self_ty) {
            use syn::spanned::Spanned;
            let span = item.span();
            let name = of.path.segments.last().expect("a name").ident.to_string();
            *self.0.impls.entry(name).or_default() += span.end().line - span.start().line + 1;
        }
        syn::visit::visit_item_impl(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.0.paths.insert(segments);
        }
        syn::visit::visit_path(self, path);
    }
}

/// The files that use each other in circles, one set a knot.
pub fn circles(graph: &Graph) -> Vec<BTreeSet<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> = graph.keys().map(|file| (file, reach(graph, file))).collect();
    let mut knots = BTreeSet::new();
    for (file, to) in &reached {
        if to.contains(file) {
            knots
                .insert(to.iter().filter(|other| reached[*other].contains(file)).map(|file| (*file).clone()).collect());
        }
    }
    knots.into_iter().collect()
}

/// All files that one uses, and those that these use.
fn reach<'a>(graph: &'a Graph, from: &'a String) -> BTreeSet<&'a String> {
    let (mut found, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(file) = next.pop() {
        next.extend(graph.get(file).into_iter().flatten().filter(|to| found.insert(*to)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(files: &[(&str, &str)]) -> Graph {
        let sources = files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect();
        Crate::parse(&sources).graph()
    }

    fn uses(graph: &Graph, file: &str) -> Vec<String> {
        graph[file].iter().cloned().collect()
    }

    #[test]
    fn a_path_leads_to_where_it_is_defined() {
        let graph = graph(&[
            ("lib.rs", "mod a; mod b;"),
            ("a/mod.rs", "mod one; mod two; pub use one::One; pub struct Own; fn f() { two::go() }"),
            ("a/one.rs", "pub struct One;"),
            ("a/two.rs", "use super::{One, Own}; pub fn go() { crate::b::help(); std::mem::drop(1) }"),
            ("b.rs", "use crate::a; pub fn help() {} fn f(_: a::One) {} #[cfg(test)] mod tests { use crate::a::Own; }"),
        ]);
        assert_eq!(uses(&graph, "a/mod.rs"), ["a/two.rs"], "what it hands on is no use");
        assert_eq!(uses(&graph, "a/two.rs"), ["a/mod.rs", "a/one.rs", "b.rs"]);
        assert_eq!(uses(&graph, "b.rs"), ["a/one.rs"], "neither the module on the way, nor what its tests use");
    }

    #[test]
    fn a_program_has_its_root_in_main() {
        let graph = graph(&[("main.rs", "mod a; pub struct Own;"), ("a.rs", "fn f(_: crate::Own) {}")]);
        assert_eq!(uses(&graph, "a.rs"), ["main.rs"]);
    }

    #[test]
    fn unit_tests_in_files_of_their_own_are_left_out() {
        let sources = [
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "#[cfg(test)] mod tests; pub struct A;"),
            ("a/tests/mod.rs", "mod more; use super::A; impl A { fn f() {} }"),
            ("a/tests/more.rs", "struct B; impl B {}"),
        ];
        let found = Crate::parse(&sources.map(|(file, text)| (file.to_owned(), text.to_owned())).into());
        assert_eq!(
            (found.graph().into_keys().collect::<Vec<_>>(), found.impls().len()),
            (vec!["a/mod.rs".to_owned(), "lib.rs".to_owned()], 0)
        );
    }

    #[test]
    fn a_circle_is_found_and_a_line_is_none() {
        let circle = |third| {
            circles(&graph(&[
                ("lib.rs", "mod a; mod b; mod c;"),
                ("a.rs", "use crate::b::B; pub struct A;"),
                ("b.rs", "pub struct B(super::c::C);"),
                ("c.rs", third),
            ]))
        };
        assert_eq!(circle("pub struct C;"), []);
        let knot: BTreeSet<String> = ["a.rs", "b.rs", "c.rs"].map(str::to_owned).into();
        assert_eq!(circle("pub struct C; fn f() -> crate::a::A { crate::a::A }"), [knot]);
    }
}
