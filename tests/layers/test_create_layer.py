import pytest

from foveal.layers import (
    CBAM,
    CoordinateAttention,
    MixedPooling,
    SqueezeExcite,
    StripPooling,
    TripletAttention,
    create_layer,
)


def test_names_give_the_classes_and_arguments_arrive():
    assert isinstance(create_layer("coordinate", 64), CoordinateAttention)
    assert isinstance(create_layer("se", 64), SqueezeExcite)
    assert isinstance(create_layer("cbam", 64), CBAM)
    assert isinstance(create_layer("triplet", 64), TripletAttention)
    assert isinstance(create_layer("strip", 64), StripPooling)
    assert isinstance(create_layer("mixed", 64), MixedPooling)
    assert create_layer("mixed", 64, pool_sizes=(8, 4)).pool_sizes == (8, 4)
    assert create_layer("triplet", 64, kernel_size=3).cw.conv.conv.kernel_size == (3, 3)
    assert create_layer("triplet", 64, spatial=False).hw is None
    assert create_layer("coordinate", 64, reduction=4).conv1.weight.shape[:2] == (16, 64)


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(ValueError, match="unknown layer 'cordinate': did you mean 'coordinate'"):
        create_layer("cordinate", 8)


def test_an_unknown_argument_gets_the_nearest_one():
    message = "unknown coordinate argument 'reducton': did you mean 'reduction'"
    with pytest.raises(TypeError, match=message):
        create_layer("coordinate", 8, reducton=4)
