//! The public interface of the client crate, as a list that is checked in: client/api.txt. Whoever changes it sees in the
//! diff what users of the crate will have to change.
//!
//! Read from the sources, since lists made by rustdoc need a nightly compiler. The generated code is checked by `contract`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use syn::{
    Attribute, Fields, ImplItem, Item, ItemImpl, Signature, TraitItem, Type, UseTree, Visibility, spanned::Spanned,
};

use super::rules::sources;
use crate::harness::root;

const LIST: &str = "client/api.txt";

/// The text of something, on one line.
fn text(of: &impl Spanned) -> String {
    let text = of.span().source_text().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What of its attributes its users see.
fn seen(attributes: &[Attribute]) -> String {
    let seen = ["cfg", "derive", "non_exhaustive", "must_use", "deprecated"];
    let seen = attributes.iter().filter(|attribute| seen.iter().any(|name| attribute.path().is_ident(name)));
    seen.map(|attribute| text(attribute) + " ").collect()
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn signature(attributes: &[Attribute], signature: &Signature) -> String {
    format!("{}{}", seen(attributes), text(signature))
}

fn names(tree: &UseTree, into: &mut BTreeSet<String>) {
    match tree {
        UseTree::Path(path) => names(&path.tree, into),
        UseTree::Group(group) => group.items.iter().for_each(|tree| names(tree, into)),
        UseTree::Name(name) => {
            into.insert(name.ident.to_string());
        }
        _ => panic!("lib.rs exports by name"),
    }
}

/// The list, while it is made.
struct Api {
    /// What `lib.rs` exports.
    exported: BTreeSet<String>,
    lines: BTreeSet<String>,
}

impl Api {
    fn add(&mut self, item: &Item) {
        match item {
            Item::Struct(item) if self.has(&item.vis, &item.ident) => {
                self.lines.insert(format!("{}: {}struct{}", item.ident, seen(&item.attrs), text(&item.generics)));
                self.fields(&item.ident.to_string(), &item.fields, false);
            }
            Item::Enum(item) if self.has(&item.vis, &item.ident) => {
                self.lines.insert(format!("{}: {}enum{}", item.ident, seen(&item.attrs), text(&item.generics)));
                for variant in &item.variants {
                    let name = format!("{}::{}", item.ident, variant.ident);
                    self.lines.insert(format!("{name} {}", seen(&variant.attrs)).trim_end().to_owned());
                    self.fields(&name, &variant.fields, true);
                }
            }
            Item::Trait(item) if self.has(&item.vis, &item.ident) => {
                self.lines.insert(format!("{}: trait: {}", item.ident, text(&item.supertraits)));
                for inner in &item.items {
                    let (TraitItem::Fn(method), name) = (inner, &item.ident) else { continue };
                    let given = if method.default.is_some() { " { .. }" } else { "" };
                    self.lines.insert(format!("{name}: {}{given}", signature(&method.attrs, &method.sig)));
                }
            }
            Item::Fn(item) if self.has(&item.vis, &item.sig.ident) => {
                self.lines.insert(signature(&item.attrs, &item.sig));
            }
            Item::Const(item) if self.has(&item.vis, &item.ident) => {
                self.lines.insert(format!("const {}: {}", item.ident, text(&item.ty)));
            }
            Item::Type(item) if self.has(&item.vis, &item.ident) => {
                self.lines.insert(format!("type {} = {}", item.ident, text(&item.ty)));
            }
            Item::Impl(item) => self.implementation(item),
            // What it makes would not be in the list.
            Item::Macro(item) => panic!("{}: the public interface is written without macros", text(item)),
            _ => {}
        }
    }

    fn has(&self, visibility: &Visibility, name: &impl ToString) -> bool {
        is_public(visibility) && self.exported.contains(&name.to_string())
    }

    fn fields(&mut self, of: &str, fields: &Fields, are_all_public: bool) {
        for (at, field) in fields.iter().enumerate() {
            let name = field.ident.as_ref().map_or_else(|| at.to_string(), ToString::to_string);
            if are_all_public || is_public(&field.vis) {
                self.lines.insert(format!("{of}.{name}: {}", text(&field.ty)));
            }
        }
    }

    fn implementation(&mut self, item: &ItemImpl) {
        let Type::Path(of) = &*item.self_ty else { return };
        let name = of.path.segments.last().expect("a name").ident.to_string();
        if !self.exported.contains(&name) {
            return;
        }
        let when = seen(&item.attrs);
        if let Some((of, _)) = &item.trait_ {
            self.lines.insert(format!("{name}: {when}impl{} {}", text(&item.generics), text(of)));
            return;
        }
        for inner in &item.items {
            match inner {
                ImplItem::Fn(method) if is_public(&method.vis) => {
                    self.lines.insert(format!("{name}: {when}{}", signature(&method.attrs, &method.sig)));
                }
                ImplItem::Const(constant) if is_public(&constant.vis) => {
                    self.lines.insert(format!("{name}: {when}const {}: {}", constant.ident, text(&constant.ty)));
                }
                _ => {}
            }
        }
    }
}

/// The list, a line each.
fn made() -> String {
    let mut sources: BTreeMap<String, String> = sources();
    sources.retain(|file, _| !file.starts_with("machine") && file != "proto.rs");
    let library = syn::parse_file(&sources.remove("lib.rs").expect("lib.rs")).expect("Rust");
    let mut api = Api { exported: BTreeSet::new(), lines: BTreeSet::new() };
    for item in &library.items {
        match item {
            Item::Use(item) if is_public(&item.vis) => names(&item.tree, &mut api.exported),
            _ => {}
        }
    }
    for (file, text) in &sources {
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        parsed.items.iter().for_each(|item| api.add(item));
    }
    let exported = api.exported.iter().map(|name| format!("pub use {name}\n"));
    exported.chain(api.lines.iter().map(|line| format!("{line}\n"))).collect()
}

#[test]
fn the_public_interface_is_what_is_checked_in() {
    let made = made();
    assert!(made.lines().count() > 150, "only {} lines are found", made.lines().count());
    let path = root().join(LIST);
    if std::env::var_os("UPDATE_CLIENT").is_some() {
        fs::write(&path, &made).expect("written");
    }
    let listed = fs::read_to_string(&path).expect("the list");
    let [old, new]: [BTreeSet<&str>; 2] = [&listed, &made].map(|list| list.lines().collect());
    let gone: Vec<_> = old.difference(&new).collect();
    let come: Vec<_> = new.difference(&old).collect();
    let is_same = gone.is_empty() && come.is_empty();
    assert!(is_same, "gone: {gone:#?}\ncome: {come:#?}\nIf that is meant: UPDATE_CLIENT=1 cargo test --test it api");
}
