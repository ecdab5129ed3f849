//! Imports run in one direction, and files stay short.
//!
//! Each name is traced through re-exports to the file that defines it. Code for tests (`#[cfg(test)]`, `src/testing`) may import everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, Item, UseTree, Visibility,
    visit::{self, Visit},
};

/// From top to bottom. A file may import from its own row and from the rows below; a directory stands for the files in it that have no row of
/// their own.
const ORDER: &[&[&str]] = &[
    &["lib.rs"],
    &["guard.rs"],
    &["extract.rs"],
    &["layer"],
    &["service.rs"],
    &["response.rs"],
    &["sessions.rs", "flash.rs"],
    &[
        "session/user.rs",
        "session/update.rs",
        "session/expiry.rs",
        "session/lazy.rs",
        "session/long_lived.rs",
    ],
    &["session/load.rs", "session/migrate.rs"],
    &["session"],
    &["commit/reload.rs"],
    &["commit/mod.rs"],
    &["commit/old_session.rs", "commit/user_index.rs"],
    &["commit/state.rs"],
    &["commit/status.rs"],
    &["commit"],
    &["users"],
    &["request.rs"],
    &["cookie.rs"],
    &["health.rs"],
    &["context.rs"],
    &["unreadable.rs"],
    &["store/mod.rs", "store/cached.rs"],
    &["store/memory.rs"],
    &["store/redis"],
    &["store/redis/transport/mod.rs"],
    &["store/redis/transport/cluster_tracking.rs"],
    &["store/redis/transport/cluster.rs"],
    &[
        "store/redis/transport/topology_search.rs",
        "store/redis/transport/cluster_state.rs",
    ],
    &["store/redis/transport/node.rs"],
    &["store/redis/transport/replica_wait.rs"],
    &["store/redis/transport/connection_tracking.rs"],
    &["store/redis/transport/connection_watch.rs"],
    &["store/redis/transport/connection.rs"],
    &["store/redis/transport"],
    &["store/redis/transport/connect.rs"],
    &["store/redis/transport/tracking.rs"],
    &["store/redis/transport/error.rs"],
    &["store/redis/transport/authentication.rs"],
    &["store/redis/transport/error_text.rs"],
    &[
        "store/user_index.rs",
        "store/outcome.rs",
        "store/deadline.rs",
    ],
    &["cache/modification.rs"],
    &["cache/mod.rs"],
    &["cache/entries.rs", "cache/flights.rs"],
    &["cache"],
    &["expiry.rs"],
    &["config"],
    &["format/mod.rs"],
    &["format/pointer.rs"],
    &["format/sharing.rs"],
    &["format/migration.rs"],
    &["format"],
    &["format/codec.rs"],
    &["format/live.rs"],
    &["format/any.rs", "format/pickle_writer.rs"],
    &["format/msgpack.rs", "format/pickle.rs", "format/json.rs"],
    &["format/plain.rs"],
    &["format/cookie_value.rs", "format/object.rs"],
    &["format/contract.rs"],
    &["signing.rs", "encryption.rs"],
    &["next_path.rs"],
    &["id.rs"],
    &["record"],
    &["random.rs", "credentials.rs"],
    &["clock.rs"],
    &["stats.rs", "trace.rs"],
    &["plain_http.rs"],
    &["body.rs"],
    &["failure_log.rs"],
    &["error.rs"],
];

/// In lines, with tests. The goal is 400.
const MAX_LINES: usize = 420;

type Module = Vec<String>;

/// A file's imports, and the names that it passes on.
#[derive(Default)]
struct File {
    /// Absolute paths, without `crate`.
    imports: BTreeSet<Module>,
    /// By the name that they have here.
    reexports: BTreeMap<String, Module>,
    /// The first segment of each path in its code.
    used: BTreeSet<String>,
}

#[test]
fn imports_run_downwards() {
    let source = Source::read();
    let mut wrong = Vec::new();
    for (importer, imported, name) in source.imports() {
        let (Some(from), Some(to)) = (row(&importer), row(&imported)) else {
            let missing = if row(&importer).is_none() {
                importer
            } else {
                imported
            };
            panic!("src/{missing} has no row in ORDER: add it");
        };
        if from > to {
            wrong.push(format!(
                "src/{importer} imports {name} of src/{imported}, which is above it"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_have_no_circle() {
    let mut below = BTreeMap::<String, BTreeSet<String>>::new();
    for (importer, imported, _) in Source::read().imports() {
        below.entry(importer).or_default().insert(imported);
    }
    for file in below.keys() {
        let mut reached = BTreeSet::new();
        let mut next = vec![file];
        while let Some(importer) = next.pop() {
            for imported in below.get(importer).into_iter().flatten() {
                assert!(
                    imported != file,
                    "src/{file} imports itself, by way of {reached:?}"
                );
                if reached.insert(imported) {
                    next.push(imported);
                }
            }
        }
    }
}

#[test]
fn files_are_short() {
    let long: Vec<_> = files(&root())
        .into_iter()
        .map(|path| {
            (
                fs::read_to_string(&path).expect("a file").lines().count(),
                path,
            )
        })
        .filter(|(lines, _)| *lines > MAX_LINES)
        .collect();
    assert!(long.is_empty(), "over {MAX_LINES} lines: {long:?}");
}

/// The row of the longest entry that is the file or a directory around it.
fn row(file: &str) -> Option<usize> {
    ORDER
        .iter()
        .enumerate()
        .flat_map(|(row, entries)| entries.iter().map(move |entry| (row, *entry)))
        .filter(|(_, entry)| Path::new(file).starts_with(entry))
        .max_by_key(|(_, entry)| entry.len())
        .map(|(row, _)| row)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// All of src/ but what is for tests.
struct Source {
    files: BTreeMap<Module, (String, File)>,
}

impl Source {
    fn read() -> Self {
        let root = root();
        let mut sources = BTreeMap::new();
        for path in files(&root) {
            let name = path
                .strip_prefix(&root)
                .expect("in src")
                .to_str()
                .expect("text")
                .to_owned();
            if name.starts_with("testing/") || name.ends_with("tests.rs") {
                continue;
            }
            let mut module: Module = name
                .trim_end_matches(".rs")
                .split('/')
                .map(str::to_owned)
                .collect();
            if module
                .last()
                .is_some_and(|last| last == "mod" || last == "lib")
            {
                module.pop();
            }
            let text = fs::read_to_string(&path).expect("a file");
            let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            let mut reader = Reader {
                module: module.clone(),
                file: File::default(),
            };
            reader.visit_file(&parsed);
            sources.insert(module, (name, reader.file));
        }
        Self { files: sources }
    }

    /// The importing file, the defining file, and the name.
    fn imports(&self) -> BTreeSet<(String, String, String)> {
        let mut imports = BTreeSet::new();
        for (module, (importer, file)) in &self.files {
            let passed_on = file
                .reexports
                .iter()
                .filter(|(name, _)| file.used.contains(*name));
            for path in file.imports.iter().chain(passed_on.map(|(_, path)| path)) {
                let Some(defining) = self.resolve(path.clone()) else {
                    continue;
                };
                if defining != *module {
                    imports.insert((
                        importer.clone(),
                        self.files[&defining].0.clone(),
                        path.join("::"),
                    ));
                }
            }
        }
        imports
    }

    /// The module that defines what `path` names; `None` for what only tests have.
    fn resolve(&self, path: Module) -> Option<Module> {
        let length = (0..=path.len())
            .rev()
            .find(|length| self.files.contains_key(&path[..*length]))?;
        let (module, rest) = path.split_at(length);
        let Some(name) = rest.first() else {
            return Some(path);
        };
        match self.files[module].1.reexports.get(name) {
            Some(target) => self.resolve([target.as_slice(), &rest[1..]].concat()),
            None if name == "testing" || name == "tests" => None,
            None => Some(module.to_vec()),
        }
    }
}

struct Reader {
    module: Module,
    file: File,
}

impl Reader {
    /// `None` for a path into another crate, or to a name that is in scope.
    fn absolute(&self, path: &[String]) -> Option<Module> {
        let (mut module, mut rest) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" if path.len() > 1 => (self.module.clone(), &path[1..]),
            "super" => (self.module.clone(), path),
            _ => return None,
        };
        while let Some(("super", above)) = rest
            .split_first()
            .map(|(first, above)| (first.as_str(), above))
        {
            module.pop();
            rest = above;
        }
        module.extend_from_slice(rest);
        Some(module)
    }

    fn read_path(&mut self, path: &[String]) {
        if let Some(first) = path.first() {
            self.file.used.insert(first.clone());
        }
        if path.len() > 1 {
            // Without a keyword in front, it may be a module below this one.
            let below = || [self.module.as_slice(), path].concat();
            let target = self.absolute(path).unwrap_or_else(below);
            self.file.imports.insert(target);
        }
    }

    fn read_use(&mut self, tree: &UseTree, path: &mut Module, is_public: bool) {
        let (name, alias) = match tree {
            UseTree::Path(tree) => {
                path.push(tree.ident.to_string());
                self.read_use(&tree.tree, path, is_public);
                path.pop();
                return;
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.read_use(tree, path, is_public);
                }
                return;
            }
            UseTree::Name(name) => (name.ident.to_string(), name.ident.to_string()),
            UseTree::Rename(rename) => (rename.ident.to_string(), rename.rename.to_string()),
            UseTree::Glob(_) => ("*".to_owned(), "*".to_owned()),
        };
        let mut full = path.clone();
        if name != "self" && name != "*" {
            full.push(name);
        }
        let Some(target) = self.absolute(&full) else {
            return;
        };
        if is_public {
            self.file.reexports.insert(alias, target);
        } else {
            self.file.imports.insert(target);
        }
    }
}

impl<'a> Visit<'a> for Reader {
    fn visit_item(&mut self, item: &'a Item) {
        if is_for_tests(attributes(item)) {
            return;
        }
        match item {
            Item::Use(item) => {
                let is_public = !matches!(item.vis, Visibility::Inherited);
                self.read_use(&item.tree, &mut Vec::new(), is_public);
            }
            Item::Mod(item) if item.content.is_some() => {
                self.module.push(item.ident.to_string());
                visit::visit_item_mod(self, item);
                self.module.pop();
            }
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_arm(&mut self, arm: &'a syn::Arm) {
        if !is_for_tests(&arm.attrs) {
            visit::visit_arm(self, arm);
        }
    }

    fn visit_variant(&mut self, variant: &'a syn::Variant) {
        if !is_for_tests(&variant.attrs) {
            visit::visit_variant(self, variant);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'a syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments = path.segments.iter();
        self.read_path(
            &segments
                .map(|segment| segment.ident.to_string())
                .collect::<Vec<_>>(),
        );
        visit::visit_path(self, path);
    }

    /// A macro's tokens are not parsed, but a path in them is still `a :: b`.
    fn visit_macro(&mut self, item: &'a syn::Macro) {
        let tokens = item.tokens.to_string();
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        for path in tokens.replace(" :: ", "::").split(|c| !is_word(c)) {
            self.read_path(&path.split("::").map(str::to_owned).collect::<Vec<_>>());
        }
        visit::visit_macro(self, item);
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && matches!(&attribute.meta, syn::Meta::List(list) if is_test_cfg(&list.tokens.to_string()))
    })
}

fn is_test_cfg(condition: &str) -> bool {
    !condition.contains("not")
        && condition
            .split(|c: char| !c.is_alphanumeric())
            .any(|word| word == "test")
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
