//! The calls that are made, over the runtime's unix socket. All of them only read.
//!
//! `GetContainerEvents` of the CRI is never called: in containerd before 2.0 it has one consumer, and the kubelet would
//! miss what is told here. containerd's own event stream has as many as want it.

use std::path::Path;
use std::time::Duration;

use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::generated::containerd::{Envelope, SubscribeRequest};
use super::generated::runtime::{
    ContainerStatusRequest, ContainerStatusResponse, ListContainersRequest, ListContainersResponse,
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandboxStatusRequest, PodSandboxStatusResponse, VersionRequest,
    VersionResponse,
};

/// An answer that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer at most: a listing of ten thousand containers with their labels.
const MOST_BYTES: usize = 64 << 20;
/// Starts and ends of processes in the namespace that Kubernetes' containers are in.
const FILTER: &str = "namespace==k8s.io,topic~=\"^/tasks/\"";

/// A connection to a runtime.
#[derive(Clone)]
pub(super) struct Runtime {
    channel: Channel,
}

impl Runtime {
    pub(super) async fn connect(socket: &Path) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
        Ok(Self { channel: endpoint.connect_timeout(PATIENCE).connect().await? })
    }

    pub(super) async fn version(&self) -> Result<VersionResponse, Status> {
        self.ask("/runtime.v1.RuntimeService/Version", VersionRequest {}).await
    }

    pub(super) async fn sandboxes(&self) -> Result<ListPodSandboxResponse, Status> {
        self.ask("/runtime.v1.RuntimeService/ListPodSandbox", ListPodSandboxRequest {}).await
    }

    pub(super) async fn containers(&self) -> Result<ListContainersResponse, Status> {
        self.ask("/runtime.v1.RuntimeService/ListContainers", ListContainersRequest {}).await
    }

    pub(super) async fn sandbox(&self, id: &str) -> Result<PodSandboxStatusResponse, Status> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        self.ask("/runtime.v1.RuntimeService/PodSandboxStatus", request).await
    }

    pub(super) async fn container(&self, id: &str) -> Result<ContainerStatusResponse, Status> {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        self.ask("/runtime.v1.RuntimeService/ContainerStatus", request).await
    }

    /// containerd's events from now on.
    pub(super) async fn events(&self) -> Result<Streaming<Envelope>, Status> {
        let path = PathAndQuery::from_static("/containerd.services.events.v1.Events/Subscribe");
        let mut grpc = self.grpc().await?;
        let request = Request::new(SubscribeRequest { filters: vec![FILTER.to_owned()] });
        Ok(grpc.server_streaming(request, path, ProstCodec::default()).await?.into_inner())
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MOST_BYTES);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }

    async fn ask<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let answer = async {
            let mut grpc = self.grpc().await?;
            let path = PathAndQuery::from_static(path);
            Ok(grpc.unary(Request::new(request), path, ProstCodec::default()).await?.into_inner())
        };
        let late = |_| Status::deadline_exceeded("no answer in time");
        tokio::time::timeout(PATIENCE, answer).await.map_err(late)?
    }
}
