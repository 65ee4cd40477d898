//! DataFusion's access to local files, held to what statements may reach: external tables, `SELECT .. FROM 'file'`, `COPY .. TO 'file'`.
//!
//! Its file system is put behind a store that looks at each file once it is open (see `millstream_connectors::reach`), and at the
//! directory of each file that is written before it is. Between that look and the write somebody who may change the directory could put a
//! link in its place: DataFusion opens by path. Whoever may do that may write there already.

use crate::error::Result;
use async_trait::async_trait;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use millstream_connectors::reach;
use millstream_types::Reach;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use std::fmt;
use std::sync::Arc;
use url::Url;

/// The same session, with local files held to `reach`.
///
/// # Errors
/// When the session's environment cannot be built again.
pub(crate) fn held(state: SessionState, reach: &Reach) -> Result<SessionState> {
    if reach.limits().is_none() {
        return Ok(state);
    }
    let runtime = state.runtime_env();
    let files = Arc::new(ReachedFiles { files: LocalFileSystem::new(), reach: reach.clone() });
    let registry = ReachedStores { others: Arc::clone(&runtime.object_store_registry), files };
    let runtime = RuntimeEnvBuilder::from_runtime_env(runtime).with_object_store_registry(Arc::new(registry)).build_arc()?;
    let config = state.config().clone().with_extension(Arc::new(reach.clone()));
    Ok(SessionStateBuilder::new_from_existing(state).with_runtime_env(runtime).with_config(config).build())
}

/// What a session is held to.
pub(crate) fn of(state: &SessionState) -> Reach {
    state.config().get_extension::<Reach>().map(|reach| reach.as_ref().clone()).unwrap_or_default()
}

/// The stores of a session, with our own for local files.
#[derive(Debug)]
struct ReachedStores {
    others: Arc<dyn ObjectStoreRegistry>,
    files: Arc<ReachedFiles>,
}

impl ObjectStoreRegistry for ReachedStores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.others.register_store(url, store)
    }

    fn deregister_store(&self, url: &Url) -> datafusion::error::Result<Arc<dyn ObjectStore>> {
        self.others.deregister_store(url)
    }

    fn get_store(&self, url: &Url) -> datafusion::error::Result<Arc<dyn ObjectStore>> {
        match url.scheme() {
            "file" => Ok(Arc::clone(&self.files) as _),
            _ => self.others.get_store(url),
        }
    }
}

/// Local files that may be reached.
#[derive(Debug)]
struct ReachedFiles {
    files: LocalFileSystem,
    reach: Reach,
}

impl fmt::Display for ReachedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.files)
    }
}

impl ReachedFiles {
    fn check_changed(&self, location: &Path) -> StoreResult<()> {
        reach::check_changed(&self.reach, self.files.path_to_filesystem(location)?).map_err(refused)
    }

    fn check_listed(&self, prefix: Option<&Path>) -> StoreResult<()> {
        let Some(prefix) = prefix else { return Err(refused(std::io::ErrorKind::PermissionDenied.into())) };
        let path = self.files.path_to_filesystem(prefix)?;
        reach::check_path(&self.reach, "the statement", &path)
            .map_err(|error| object_store::Error::PermissionDenied { path: path.display().to_string(), source: Box::new(error) })
    }
}

fn refused(error: std::io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(error) }
}

#[async_trait]
impl ObjectStore for ReachedFiles {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.check_changed(location)?;
        self.files.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
        self.check_changed(location)?;
        self.files.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        let found = self.files.get_opts(location, options).await?;
        if let GetResultPayload::File(file, path) = &found.payload {
            reach::check_opened(&self.reach, file, path).map_err(refused)?;
        }
        Ok(found)
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        let (files, reach) = (self.files.clone(), self.reach.clone());
        let checked = locations.and_then(move |location| {
            let path = files.path_to_filesystem(&location);
            let checked = path.and_then(|path| reach::check_changed(&reach, path).map_err(refused)).map(|()| location);
            std::future::ready(checked)
        });
        self.files.delete_stream(checked.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        match self.check_listed(prefix) {
            Ok(()) => self.files.list(prefix),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.check_listed(prefix)?;
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.check_changed(from)?;
        self.check_changed(to)?;
        self.files.copy_opts(from, to, options).await
    }
}
