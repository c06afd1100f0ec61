//! One question for each API, answered in its own type: refusals of the shell become what Kafka says in their place.

use coordinator::{
    CommitRequest, DeleteOffsetsRequest, DescribeResponse, FetchRequest, FetchResponse,
    HeartbeatRequest, JoinRequest, JoinResponse, LeaveRequest, LeaveResponse, LeftMember,
    ListRequest, ListedGroup, PartitionErrors, Request, Response, SyncRequest, SyncResponse,
};
use futures::future::join_all;
use protocol::ErrorCode;

use super::Groups;

impl Groups {
    /// JoinGroup: returns when the join phase ends.
    pub async fn join(&self, request: JoinRequest) -> JoinResponse {
        let member = request.member.clone();
        match self.ask_named(Request::Join(request)).await {
            Ok(Response::Join(response)) => response,
            other => JoinResponse::error(&member, refusal(other)),
        }
    }

    /// SyncGroup: returns when the assignment is durable.
    pub async fn sync(&self, request: SyncRequest) -> SyncResponse {
        match self.ask_named(Request::Sync(request)).await {
            Ok(Response::Sync(response)) => response,
            other => SyncResponse::error(refusal(other)),
        }
    }

    /// Heartbeat. While the group is being loaded, nobody is told to worry.
    pub async fn heartbeat(&self, request: HeartbeatRequest) -> ErrorCode {
        match self.ask_named(Request::Heartbeat(request)).await {
            Ok(Response::Heartbeat(error)) => error,
            other => match refusal(other) {
                ErrorCode::CoordinatorLoadInProgress => ErrorCode::None,
                error => error,
            },
        }
    }

    /// LeaveGroup.
    pub async fn leave(&self, request: LeaveRequest) -> LeaveResponse {
        match self.ask_named(Request::Leave(request)).await {
            Ok(Response::Leave(response)) => response,
            other => LeaveResponse { error: refusal(other), members: Vec::<LeftMember>::new() },
        }
    }

    /// OffsetCommit: returns when the offsets are durable. `Err` stands for all partitions.
    ///
    /// # Errors
    /// The code for every partition of the request.
    pub async fn commit(&self, request: CommitRequest) -> Result<PartitionErrors, ErrorCode> {
        match self.ask(Request::Commit(request)).await {
            Ok(Response::Commit(errors)) => Ok(errors),
            other => Err(refusal(other)),
        }
    }

    /// OffsetFetch of one group, from durable offsets alone.
    pub async fn fetch(&self, request: FetchRequest) -> FetchResponse {
        match self.ask(Request::Fetch(request)).await {
            Ok(Response::Fetch(response)) => response,
            other => FetchResponse {
                // Consumers before 3.9 know what to do about the second only.
                error: match refusal(other) {
                    ErrorCode::CoordinatorNotAvailable => ErrorCode::NotCoordinator,
                    error => error,
                },
                topics: Vec::new(),
            },
        }
    }

    /// ListGroups over all shards led here.
    ///
    /// # Errors
    /// The code of the first shard that could not answer.
    pub async fn list(&self, request: ListRequest) -> Result<Vec<ListedGroup>, ErrorCode> {
        let shards = self.all_led_here();
        let asked = shards.into_iter().map(|id| self.ask_shard(id, Request::List(request.clone())));
        let mut listed = Vec::new();
        for answer in join_all(asked).await {
            match answer {
                Ok(Response::List(groups)) => listed.extend(groups),
                // The shard has moved meanwhile; its new owner lists it.
                Err(ErrorCode::NotCoordinator) => {}
                other => return Err(refusal(other)),
            }
        }
        Ok(listed)
    }

    /// DescribeGroups of one group.
    ///
    /// # Errors
    /// The code for this group.
    pub async fn describe(&self, group: String) -> Result<DescribeResponse, ErrorCode> {
        match self.ask(Request::Describe { group }).await {
            Ok(Response::Describe(response)) => Ok(response),
            other => Err(refusal(other)),
        }
    }

    /// DeleteGroups of one group: returns when the deletion is durable.
    pub async fn delete(&self, group: String) -> ErrorCode {
        match self.ask(Request::Delete { group }).await {
            Ok(Response::Delete(error)) => error,
            other => refusal(other),
        }
    }

    /// OffsetDelete: returns when the deletion is durable.
    ///
    /// # Errors
    /// The code for the request as a whole.
    pub async fn delete_offsets(
        &self,
        request: DeleteOffsetsRequest,
    ) -> Result<PartitionErrors, ErrorCode> {
        match self.ask_named(Request::DeleteOffsets(request)).await {
            Ok(Response::DeleteOffsets(errors)) => Ok(errors),
            other => Err(refusal(other)),
        }
    }

    /// Membership needs a group with a name; offsets do not.
    async fn ask_named(&self, request: Request) -> Result<Response, ErrorCode> {
        if request.group().is_some_and(str::is_empty) {
            return Err(ErrorCode::InvalidGroupId);
        }
        self.ask(request).await
    }
}

/// The code of a refusal. A shard answers a request with the response of its kind or a refusal, nothing else.
fn refusal(answer: Result<Response, ErrorCode>) -> ErrorCode {
    match answer {
        Err(error) | Ok(Response::Refused(error)) => error,
        Ok(_) => ErrorCode::UnknownServerError,
    }
}
