//! The trait that is generated from the protocol's definition, for [`Flight`].
//!
//! Its functions are written as `async_trait` would, but hand on futures that are made elsewhere. Functions with bounds on lifetimes, as
//! these are, are checked without what the compiler already knows: that the engine in [`Flight`] is `Send` was proved again and again, for
//! three minutes.

use super::{Answer, Flight, Messages, Sent};
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo,
    PutResult, Result as ActionResult, SchemaResult, Ticket,
};
use tonic::{Request, Streaming};

macro_rules! calls {
    ($($name:ident($request:ty) -> $response:ty;)*) => {
        $(fn $name<'a, 'f>(&'a self, request: Request<$request>) -> Answer<$response>
        where
            'a: 'f,
            Self: 'f,
        {
            Flight::$name(self.clone(), request)
        })*
    };
}

impl FlightService for Flight {
    type HandshakeStream = Sent<HandshakeResponse>;
    type ListFlightsStream = Sent<FlightInfo>;
    type DoGetStream = Messages;
    type DoPutStream = Sent<PutResult>;
    type DoActionStream = Sent<ActionResult>;
    type ListActionsStream = Sent<ActionType>;
    type DoExchangeStream = Messages;

    calls! {
        handshake(Streaming<HandshakeRequest>) -> Self::HandshakeStream;
        list_flights(Criteria) -> Self::ListFlightsStream;
        get_flight_info(FlightDescriptor) -> FlightInfo;
        poll_flight_info(FlightDescriptor) -> PollInfo;
        get_schema(FlightDescriptor) -> SchemaResult;
        do_get(Ticket) -> Self::DoGetStream;
        do_put(Streaming<FlightData>) -> Self::DoPutStream;
        do_exchange(Streaming<FlightData>) -> Self::DoExchangeStream;
        do_action(Action) -> Self::DoActionStream;
        list_actions(Empty) -> Self::ListActionsStream;
    }
}
