"""The control plane: the gRPC API of an agent, its client, and the mapping between views and protobuf.

Only this package imports the generated code. It decides nothing: requests are checked for shape and handed to a
`mrc.control.service.Service` or a docket, answers are views of `mrc.core.views` or conflicts as resolvers write them.
"""
