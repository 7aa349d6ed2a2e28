"""Tensors that are sent to a device together."""

import torch

from fastreason.runtime.transfer import send


def test_what_is_sent_arrives_as_views_of_one_buffer(monkeypatch):
    given = [torch.arange(7), torch.tensor([True, False, True]), torch.rand(3, 5), torch.zeros(0, 2), torch.tensor(2.5)]
    assert all(a is b for a, b in zip(send(given, torch.device("cpu")), given, strict=True))
    on_meta = send(given, torch.device("meta"))
    assert [(x.shape, x.dtype) for x in on_meta] == [(x.shape, x.dtype) for x in given]
    # a device that keeps values: CPU under another name
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda x, device, **options: to(x, "cpu"))
    sent = send(given, torch.device("meta"))
    assert all(torch.equal(a, b) for a, b in zip(sent, given, strict=True))
    # the views of one buffer lie where kernels may read 16 bytes at once
    assert len({x.untyped_storage().data_ptr() for x in sent}) == 1
    assert all(x.storage_offset() * x.element_size() % 16 == 0 for x in sent)
    assert send([], torch.device("meta")) == []
