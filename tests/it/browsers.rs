//! The pages in `examples/web` in a real browser, against the real hub. The tests are in `examples/web/test`.

use std::{path::Path, process::Command};

use crate::harness::{program, root};

/// Where the browser puts its pictures of pages, for people to look at.
fn screenshots() -> std::path::PathBuf {
    let test = std::env::current_exe().expect("a path");
    test.ancestors().nth(3).expect("the target folder").join("screenshots")
}

#[test]
fn the_pages_do_in_browsers_what_they_promise() {
    let tests = Command::new("node")
        .args(["--test", "--test-concurrency=2", "--test-reporter=tap"])
        .current_dir(root().join("examples/web/test"))
        .env("SWITCHYARD", program().get_program())
        .env("SCREENSHOTS", screenshots())
        .output()
        .expect("node");
    let told = String::from_utf8_lossy(&tests.stdout);
    assert!(tests.status.success(), "{told}{}", String::from_utf8_lossy(&tests.stderr));
    // A file that is not found must not pass for a test.
    assert!(told.contains("# fail 0") && told.contains("# skipped 0"), "{told}");
    for page in ["board", "chat", "draw", "index", "log"] {
        for shot in [format!("{page}-1280.png"), format!("{page}-390.png")] {
            assert!(screenshots().join(&shot).exists(), "the tests made no {shot}");
        }
    }
}

/// Policy and separation of the pages: no script, style or handler inside HTML, and nothing from elsewhere.
#[test]
fn the_pages_need_nothing_from_elsewhere_and_no_inline_code() {
    fn walk(folder: &Path, found: &mut usize) {
        for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() && !entry.ends_with("test") {
                walk(&entry, found);
            } else if entry.extension().is_some_and(|kind| ["html", "css", "js"].map(AsRef::as_ref).contains(&kind)) {
                let text = std::fs::read_to_string(&entry).expect("text");
                // How a comment names another hub, and what SVG is called.
                let text = text.replace("https://hub.example", "").replace("http://www.w3.org", "");
                for inline in
                    ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " onclick=", " style="]
                {
                    assert!(!text.contains(inline), "{}: {inline}", entry.display());
                }
                let elsewhere = ["src=\"http", "href=\"http", "url(http", "@import", "from \"http", "//cdn"];
                for other in elsewhere {
                    assert!(!text.contains(other), "{}: {other}", entry.display());
                }
                if entry.extension() == Some("html".as_ref()) {
                    assert!(text.contains("default-src 'none'"), "{} has no policy", entry.display());
                    assert!(
                        !text.contains("<style") && !text.contains("<script>"),
                        "{} has inline code",
                        entry.display()
                    );
                }
                *found += 1;
            }
        }
    }
    let mut found = 0;
    walk(&root().join("examples/web"), &mut found);
    assert!(found > 20, "only {found} files are found");
}
