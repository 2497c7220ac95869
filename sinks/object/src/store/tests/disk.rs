//! A directory as a store.

use std::path::Path;

use super::*;

fn of(root: &Path) -> Store {
    store(&format!("provider = 'disk'\nroot = '{}'", root.display()))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_object_appears_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("made/when/needed");
    let store = of(&root);
    store.probe().await.unwrap();
    assert!(!root.exists(), "a probe makes nothing");
    let content = bytes(3 << 20);
    let mut upload = store.begin("a/b=c/object", &Description::default()).await.unwrap();
    upload.write(content.clone()).await.unwrap();
    let hidden = names(&root.join("a/b=c"));
    assert!(hidden.len() == 1 && hidden[0].starts_with(".object.") && hidden[0].ends_with(".unfinished"), "{hidden:?}");
    assert_eq!(keys(&store, "").await, Vec::<String>::new(), "nobody sees it yet");
    let stored = upload.finish().await.unwrap();
    assert_eq!(names(&root.join("a/b=c")), ["object"]);
    assert_eq!(store.digest("a/b=c/object").await.unwrap(), Some(stored));
    assert_eq!(keys(&store, "a/").await, [format!("a/b=c/object {}", content.len())]);
    assert_eq!(keys(&store, "z/").await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_new_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = of(dir.path());
    let first = put_new(&store, "a/object", &bytes(10)).await.unwrap();
    let fault = store.fault(put_new(&store, "a/object", &bytes(20)).await.unwrap_err());
    assert_eq!(fault.code, "key-taken", "{}", fault.reason);
    assert_eq!(store.digest("a/object").await.unwrap(), Some(first));
    assert_eq!(names(&dir.path().join("a")), ["object"], "nothing is left of the second");
    assert_eq!(put(&store, "a/object", &bytes(20)).await.unwrap().length_bytes, 20);
}

#[tokio::test]
async fn what_is_given_up_or_left_by_a_crash_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let store = of(dir.path());
    put(&store, "a/object", &bytes(10)).await.unwrap();
    let mut upload = store.begin("a/object", &Description::default()).await.unwrap();
    upload.write(bytes(5)).await.unwrap();
    upload.abandon().await;
    drop(store.begin("a/object", &Description::default()).await.unwrap());
    assert_eq!(store.length_of("a/object").await.unwrap(), Some(10), "the old one stays");
    let left = std::fs::File::create(dir.path().join("a/.object.0123456789abcdef.unfinished")).unwrap();
    left.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    put(&store, "a/object", &bytes(20)).await.unwrap();
    assert_eq!(names(&dir.path().join("a")), ["object"]);
}

#[tokio::test]
async fn what_a_disk_refuses_has_a_code() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let store = of(&dir.path().join("file"));
    let fault = store.fault(store.probe().await.unwrap_err());
    assert_eq!(fault.code, "not-a-directory", "{}", fault.reason);
    let fault = store.fault(put(&store, "a/b", &bytes(1)).await.unwrap_err());
    assert_eq!(fault.code, "not-a-directory", "{}", fault.reason);
    let fault = store.fault(put(&store, "../b", &bytes(1)).await.unwrap_err());
    assert_eq!(fault.code, "bad-path", "{}", fault.reason);
}
