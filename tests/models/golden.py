"""Parameters and multiply-adds that the architectures must have, to the last one, and where the numbers come from."""

from typing import NamedTuple


class Golden(NamedTuple):
    """Parameters without running statistics; GMACs of one image of the variant's size, None where no source has them."""

    parameters: int
    gmacs: float | None = None


# torchvision 0.28.0: the weights' metadata (num_params, _ops), 1,000 classes; r3d_18: 400 classes, 16 frames.
TORCHVISION = {
    "alexnet": Golden(61_100_840, 0.714),
    "convnext_base": Golden(88_591_464, 15.355),
    "convnext_small": Golden(50_223_688, 8.684),
    "convnext_tiny": Golden(28_589_128, 4.456),
    "densenet121": Golden(7_978_856, 2.834),
    "densenet161": Golden(28_681_000, 7.728),
    "densenet169": Golden(14_149_480, 3.36),
    "densenet201": Golden(20_013_928, 4.291),
    "efficientnet_b0": Golden(5_288_548, 0.386),
    "efficientnet_b1": Golden(7_794_184, 0.687),
    "efficientnet_b2": Golden(9_109_994, 1.088),
    "efficientnet_b3": Golden(12_233_232, 1.827),
    "efficientnet_b4": Golden(19_341_616, 4.394),
    "efficientnet_b5": Golden(30_389_784, 10.266),
    "efficientnet_b6": Golden(43_040_704, 19.068),
    "efficientnet_b7": Golden(66_347_960, 37.746),
    "efficientnet_v2_s": Golden(21_458_488, 8.366),
    "googlenet": Golden(6_624_904, 1.498),
    "inception_v3": Golden(27_161_264, 5.713),
    "mobilenet_v2": Golden(3_504_872, 0.301),
    "mobilenet_v3_large": Golden(5_483_032, 0.217),
    "mobilenet_v3_small": Golden(2_542_856, 0.057),
    "r3d_18": Golden(33_371_472, 40.697),
    "resnet18": Golden(11_689_512, 1.814),
    "resnet34": Golden(21_797_672, 3.664),
    "resnet50": Golden(25_557_032, 4.089),
    "resnet101": Golden(44_549_160, 7.801),
    "resnet152": Golden(60_192_808, 11.514),
    "resnext50_32x4d": Golden(25_028_904, 4.23),
    "resnext101_32x8d": Golden(88_791_336, 16.414),
    "resnext101_64x4d": Golden(83_455_272, 15.46),
    "shufflenet_v2_x0_5": Golden(1_366_792, 0.04),
    "shufflenet_v2_x1_0": Golden(2_278_604, 0.145),
    "shufflenet_v2_x1_5": Golden(3_503_624, 0.296),
    "shufflenet_v2_x2_0": Golden(7_393_996, 0.583),
    "squeezenet1_0": Golden(1_248_424, 0.819),
    "squeezenet1_1": Golden(1_235_496, 0.349),
    "vgg11": Golden(132_863_336, 7.609),
    "vgg11_bn": Golden(132_868_840, 7.609),
    "vgg13": Golden(133_047_848, 11.308),
    "vgg13_bn": Golden(133_053_736, 11.308),
    "vgg16": Golden(138_357_544, 15.47),
    "vgg16_bn": Golden(138_365_992, 15.47),
    "vgg19": Golden(143_667_240, 19.632),
    "vgg19_bn": Golden(143_678_248, 19.632),
    "wide_resnet50_2": Golden(68_883_240, 11.398),
    "wide_resnet101_2": Golden(126_886_696, 22.753),
}


def cifar_resnet(depth: int) -> int:
    """He et al. 2016, section 4.2, norms counted: the stem, 6n 3x3 convolutions, the head; shortcuts have no parameters."""
    n = (depth - 2) // 6
    kernels = 9 * (3 * 16 + 16 * 16 * 2 * n + (16 + (2 * n - 1) * 32) * 32 + (32 + (2 * n - 1) * 64) * 64)
    return kernels + 2 * (16 * (2 * n + 1) + 32 * 2 * n + 64 * 2 * n) + 65 * 10


# He et al. 2016, table 6, prints 0.27, 0.46, 0.66, 0.85, 1.7 and 19.4 million.
CIFAR = {
    "cifar_resnet": Golden(269_722, 0.04055),
    "cifar_resnet20": Golden(269_722, 0.04055),
    "cifar_resnet32": Golden(cifar_resnet(32)),
    "cifar_resnet44": Golden(cifar_resnet(44)),
    "cifar_resnet56": Golden(853_018, 0.12549),
    "cifar_resnet110": Golden(1_727_962, 0.25289),
    "cifar_resnet1202": Golden(cifar_resnet(1202)),
    # As many norms of as many channels, at other places.
    "cifar_preact_resnet": Golden(269_722),
}


def mobilenet_v1(alpha: float) -> int:
    """Howard et al. 2017, table 1, norms counted: a depthwise kernel, a 1x1 kernel and two norms a block."""
    widths = [int(alpha * width) for width in (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)]
    blocks = sum(9 * a + 2 * a + a * b + 2 * b for a, b in zip(widths, widths[1:], strict=False))
    return 27 * widths[0] + 2 * widths[0] + blocks + (widths[-1] + 1) * 1000


# Howard et al. 2017, table 6: 569, 325, 149 and 41 million multiply-adds; 4.2, 2.6, 1.3 and 0.5 million parameters.
MOBILENET_V1 = {
    "mobilenet_v1": Golden(4_231_976, 0.569),
    "mobilenet_v1_x0_75": Golden(mobilenet_v1(0.75), 0.325),
    "mobilenet_v1_x0_5": Golden(mobilenet_v1(0.5), 0.149),
    "mobilenet_v1_x0_25": Golden(mobilenet_v1(0.25), 0.041),
}


def wide_resnet(depth: int, factor: int) -> int:
    """Zagoruyko & Komodakis 2016, table 1, norms counted: two 3x3 kernels and two norms a block, a 1x1 kernel a stage."""
    n, channels, count = (depth - 4) // 6, 16, 27 * 16
    for width in (16 * factor, 32 * factor, 64 * factor):
        count += 9 * channels * width + (2 * n - 1) * 9 * width**2 + channels * width * (channels != width)
        count += 2 * (channels + width + (n - 1) * 2 * width)
        channels = width
    return count + 2 * channels + (channels + 1) * 10


# Zagoruyko & Komodakis 2016, table 4, prints 0.6, 2.2, 8.9 and 35.7 million at depth 40; 17.2 and 26.8 at 22; 36.5 and 52.5
# at 28; 11.0 and 17.1 at 16.
WIDE_RESNETS = {
    **{f"wide_resnet16_{k}": Golden(wide_resnet(16, k)) for k in (4, 8, 10)},
    **{f"wide_resnet22_{k}": Golden(wide_resnet(22, k)) for k in (8, 10)},
    **{f"wide_resnet28_{k}": Golden(wide_resnet(28, k)) for k in (2, 12)},
    "wide_resnet28_10": Golden(36_479_194, 5.25),
    **{f"wide_resnet40_{k}": Golden(wide_resnet(40, k)) for k in (1, 2, 4, 8)},
}


def cifar_bottleneck(depth: int) -> int:
    """He et al. 2016b, section 4, norms counted: 1x1, 3x3 and 1x1 a block with a norm in front, a 1x1 shortcut a stage."""
    n, channels, count = (depth - 2) // 9, 16, 27 * 16
    for width in (16, 32, 64):
        count += channels * 4 * width + (channels + (n - 1) * 4 * width) * width + n * (9 + 4) * width**2
        count += 2 * (channels + (n - 1) * 4 * width + n * 2 * width)
        channels = 4 * width
    return count + 2 * channels + (channels + 1) * 10


# He et al. 2016b, table 4, prints 1.7, 1.7 and 10.2 million, which leave out the norms: 1,679,034 and 10,178,490.
CIFAR_PREACT = {
    "cifar_preact_resnet110": Golden(1_727_962, 0.25289),
    "cifar_preact_resnet164": Golden(cifar_bottleneck(164)),
    "cifar_preact_resnet1001": Golden(cifar_bottleneck(1001)),
}


def bottlenecks(*depths: int) -> tuple[int, int]:
    """Weights and output channels of all convolutions of an ImageNet ResNet of bottlenecks (He et al. 2016, table 1)."""
    channels, weights, outputs = 64, 49 * 3 * 64, 64
    for stage, n in enumerate(depths):
        width = 64 * 2**stage
        weights += channels * 4 * width + (channels + (n - 1) * 4 * width) * width + n * (9 + 4) * width**2
        outputs += 4 * width + n * 6 * width
        channels = 4 * width
    return weights, outputs


def nf_resnet(*depths: int) -> int:
    """Brock et al. 2021a, as timm has it: a gain and a bias for each channel that has a norm in the ResNet."""
    weights, outputs = bottlenecks(*depths)
    return weights + 2 * outputs + 2049 * 1000


# timm's results-imagenet.csv prints 25.56 million for nf_resnet50; with SkipInit there is one more a block.
NF_RESNETS = {
    "nf_resnet26": Golden(nf_resnet(2, 2, 2, 2)),
    "nf_resnet50": Golden(25_557_032, 4.089),
    "nf_resnet101": Golden(44_549_160, 7.801),
    "nf_resnet152": Golden(60_192_808, 11.514),
    "nf_resnet200": Golden(nf_resnet(3, 24, 36, 3)),
    "nf_resnet288": Golden(nf_resnet(24, 24, 24, 24)),
}


def fixup_bottleneck(*depths: int) -> int:
    """Zhang et al. 2019, figure 1: six biases and a multiplier a block, a bias behind the stem and one before the head."""
    return bottlenecks(*depths)[0] + 7 * sum(depths) + 2 + 2049 * 1000


def fixup_basic(*depths: int) -> int:
    """The same with four biases and one multiplier for two 3x3 kernels; 1x1 shortcuts in front of three stages."""
    kernels = 49 * 3 * 64 + sum(9 * (2 * n - 1) * (64 * 2**stage) ** 2 for stage, n in enumerate(depths))
    kernels += 9 * 64 * 64 + (9 + 1) * (64 * 128 + 128 * 256 + 256 * 512)
    return kernels + 5 * sum(depths) + 2 + 513 * 1000


def fixup_cifar(depth: int) -> int:
    """The kernels of `cifar_resnet` without its 2 (16 (2n + 1) + 32 * 2n + 64 * 2n) of norms."""
    n = (depth - 2) // 6
    return cifar_resnet(depth) - 2 * (16 + 224 * n) + 5 * 3 * n + 2


# The convolutions are those of the ResNets, and so are the multiply-adds.
FIXUP_RESNETS = {
    "fixup_resnet18": Golden(fixup_basic(2, 2, 2, 2), 1.814),
    "fixup_resnet34": Golden(fixup_basic(3, 4, 6, 3), 3.664),
    "fixup_resnet50": Golden(fixup_bottleneck(3, 4, 6, 3), 4.089),
    "fixup_resnet101": Golden(fixup_bottleneck(3, 4, 23, 3), 7.801),
    "fixup_resnet152": Golden(fixup_bottleneck(3, 8, 36, 3), 11.514),
    "fixup_resnet20": Golden(fixup_cifar(20), 0.04055),
    "fixup_resnet56": Golden(fixup_cifar(56), 0.12549),
    "fixup_resnet110": Golden(fixup_cifar(110), 0.25289),
    **{f"fixup_resnet{depth}": Golden(fixup_cifar(depth)) for depth in (32, 44, 1202)},
}


def densenet(n: int, growth: int, width: int, *, bottleneck: bool, compression: float) -> int:
    """Huang et al. 2017, section 4.1, three blocks of n layers, norms counted; `seen`: input channels of all n together."""
    channels, count = width, 27 * width
    for block in range(3):
        seen = n * channels + growth * n * (n - 1) // 2
        if bottleneck:
            count += (2 + 4 * growth) * seen + n * (2 * 4 * growth + 9 * 4 * growth**2)
        else:
            count += (2 + 9 * growth) * seen
        channels += n * growth
        if block < 2:
            kept = int(compression * channels)
            count += (2 + kept) * channels
            channels = kept
    return count + 2 * channels + (channels + 1) * 10


# Huang et al. 2017, table 2, prints 1.0 and 0.8 million.
DENSENETS = {
    "densenet40_12": Golden(densenet(12, 12, 16, bottleneck=False, compression=1)),
    "densenet_bc100_12": Golden(densenet(16, 12, 24, bottleneck=True, compression=0.5)),
}


def airbench(widths: tuple[int, ...], depth: int) -> Golden:
    """Jordan 2024, section 3.1, kernel by kernel, the scales that its code keeps at 1 counted; maps of 31, 15, 7 and 3."""
    channels, side, count, macs = 24, 31, 12 * 24 + 24, 12 * 24 * 31**2
    for width in widths:
        count += 9 * (channels + (depth - 1) * width) * width + 2 * depth * width
        macs += 9 * channels * width * side**2
        side //= 2
        macs += (depth - 1) * 9 * width**2 * side**2
        channels = width
    return Golden(count + channels * 10, (macs + channels * 10) / 1e9)


# The code's head says 2 million parameters. Its scripts count 0.29, 1.39 and 7.46e15 operations for 8, 15 and 40 epochs, a
# third of them forward: 0.121, 0.309 and 0.622 billion multiply-adds an image.
AIRBENCH = {
    "airbench94": airbench((64, 256, 256), 2),
    "airbench95": airbench((128, 384, 384), 2),
    "airbench96": airbench((128, 512, 512), 3),
}

SMALL_NETS = {
    # 6 (25 + 1) + 16 (6 * 25 + 1) + 120 (400 + 1) + 84 (120 + 1) + 10 (84 + 1), C3 fully connected.
    "lenet5": Golden(61_706),
    # TensorFlow's tutorial on CNNs prints 896, 18,496, 36,928, 65,600 and 650.
    "keras_cifar_cnn": Golden(122_570),
    "mlp": Golden(784 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10),
    "plain": Golden(16 * 28 + 8 * 16 * 145 + 10 * (32 * 32 * 16 + 1)),
}


def shufflenet_v1(groups: int, widths: tuple[int, ...], stem: int = 24) -> int:
    """Zhang et al. 2018, table 1 and figure 2, norms counted: a quarter of the channels inside, the first 1x1 undivided."""

    def unit(n_in: int, width: int, n_out: int, first_groups: int) -> int:
        inside = width // 4
        kernels = n_in * inside // first_groups + 9 * inside + inside * n_out // groups
        return kernels + 2 * (inside + inside + n_out)

    count, channels = 27 * stem + 2 * stem, stem
    for width, units in zip(widths, (4, 8, 4), strict=True):
        count += unit(channels, width, width - channels, 1 if channels == stem else groups)
        count += (units - 1) * unit(width, width, width, groups)
        channels = width
    return count + (channels + 1) * 1000


# github.com/megvii-model/ShuffleNet-Series prints 138, 38, 292 and 524 million multiply-adds with 3 groups, 138, 40, 290 and
# 522 with 8; parameters 1.9, 0.7, 3.4 and 5.4 million, and 2.4, 1.0, 4.3 and 6.5.
SHUFFLENET_V1 = {
    # Table 1 prints 143, 140 and 133 million for the convolutions.
    "shufflenet_v1_g1": Golden(shufflenet_v1(1, (144, 288, 576)), 0.143 + 576e-6),
    "shufflenet_v1_g2": Golden(shufflenet_v1(2, (200, 400, 800)), 0.14 + 800e-6),
    "shufflenet_v1_g3": Golden(shufflenet_v1(3, (240, 480, 960)), 0.138),
    "shufflenet_v1_g4": Golden(shufflenet_v1(4, (272, 544, 1088)), 0.133 + 1088e-6),
    "shufflenet_v1_g8": Golden(shufflenet_v1(8, (384, 768, 1536)), 0.138),
    "shufflenet_v1_g3_x0_5": Golden(shufflenet_v1(3, (120, 240, 480), 12), 0.038),
    "shufflenet_v1_g3_x1_5": Golden(shufflenet_v1(3, (360, 720, 1440)), 0.292),
    "shufflenet_v1_g3_x2_0": Golden(shufflenet_v1(3, (480, 960, 1920), 48), 0.524),
    "shufflenet_v1_g8_x0_5": Golden(shufflenet_v1(8, (192, 384, 768), 16), 0.04),
    "shufflenet_v1_g8_x1_5": Golden(shufflenet_v1(8, (576, 1152, 2304)), 0.29),
    "shufflenet_v1_g8_x2_0": Golden(shufflenet_v1(8, (768, 1536, 3072), 48), 0.522),
}


def unet(depth: int, width: int, *, rank: int, n_in: int = 1, num_classes: int = 2) -> int:
    """Ronneberger et al. 2015, figure 1: pairs of 3x3 convolutions, 2x2 up-convolutions, all with biases."""
    widths = [width * 2**level for level in range(depth + 1)]
    down = sum((3**rank * (a + b) + 2) * b for a, b in zip([n_in, *widths], widths, strict=False))
    up = sum((2**rank * 2 * w + 1) * w + (3**rank * 3 * w + 2) * w for w in widths[:-1])
    return down + up + (width + 1) * num_classes


UNETS = {
    "unet": Golden(31_030_658),
    "unet_padded": Golden(31_030_658),
    "unet3d": Golden(unet(3, 32, rank=3)),
}

# Spatial axes of the logits, where they are maps.
MAPS = {"unet": (388, 388), "unet_padded": (512, 512), "unet3d": (64, 64, 64)}


def waveform(stem: int, *stages: tuple[int, int]) -> int:
    """Dai et al. 2016, table 1, norms counted: window 80, then 3 in every layer of the stages (width, layers)."""
    count, channels = 80 * stem + 2 * stem, stem
    for width, layers in stages:
        count += 3 * (channels + (layers - 1) * width) * width + 2 * layers * width
        channels = width
    return count + (channels + 1) * 10


# Dai et al. 2016, table 1, prints 0.2, 0.5, 1.8, 3.7 and 4 million.
SEQUENCES = {
    "m3": Golden(waveform(256, (256, 1))),
    "m5": Golden(waveform(128, (128, 1), (256, 1), (512, 1))),
    "m11": Golden(waveform(64, (64, 2), (128, 2), (256, 3), (512, 2))),
    "m18": Golden(waveform(64, (64, 4), (128, 4), (256, 4), (512, 4))),
    "m34_res": Golden(waveform(48, (48, 6), (96, 8), (192, 12), (384, 6))),
    # Kim 2014, section 3.1 and table 1: the words of the movie reviews, 100 maps for each of 3, 4 and 5 words.
    "text_cnn": Golden(18_765 * 300 + 100 * (300 * (3 + 4 + 5) + 3) + 301 * 2),
    # Zhou & Troyanskaya 2015, supplementary note: 1000 -> 993 -> 248 -> 241 -> 60 -> 53 positions.
    "deepsea": Golden(
        320 * (8 * 4 + 1) + 480 * (8 * 320 + 1) + 960 * (8 * 480 + 1) + 925 * (53 * 960 + 1) + 919 * (925 + 1)
    ),
}


def preact_resnet(depths: tuple[int, ...], *, bottleneck: bool) -> int:
    """He et al. 2016b, norms counted: one in front of each convolution of a branch but the very first, none in shortcuts."""
    channels, count = 64, 49 * 3 * 64 + 2 * 64
    for stage, blocks in enumerate(depths):
        inner = 64 * 2**stage
        outer = 4 * inner if bottleneck else inner
        sizes = [(channels, inner, 1), (inner, inner, 9), (inner, outer, 1)]
        later = [(outer, inner, 1), *sizes[1:]]
        if not bottleneck:
            sizes, later = [(channels, inner, 9), (inner, inner, 9)], [(inner, inner, 9)] * 2
        layers = sizes + later * (blocks - 1)
        count += sum(window * a * b + 2 * a for a, b, window in layers)
        count += channels * outer * (channels != outer) - 2 * channels * (stage == 0)
        channels = outer
    return count + 2 * channels + (channels + 1) * 1000


# The convolutions are those of torchvision's ResNets, so the multiply-adds are, too.
PREACT = {
    "preact_resnet18": Golden(preact_resnet((2, 2, 2, 2), bottleneck=False), 1.814),
    "preact_resnet34": Golden(preact_resnet((3, 4, 6, 3), bottleneck=False), 3.664),
    "preact_resnet50": Golden(preact_resnet((3, 4, 6, 3), bottleneck=True), 4.089),
    "preact_resnet101": Golden(preact_resnet((3, 4, 23, 3), bottleneck=True), 7.801),
    "preact_resnet152": Golden(preact_resnet((3, 8, 36, 3), bottleneck=True), 11.514),
    "preact_resnet200": Golden(preact_resnet((3, 24, 36, 3), bottleneck=True)),
}

# Tran et al. 2015, figure 3: 3x3x3 kernels and biases; 512 maps of 1x4x4 into two layers of 4,096. Multiply-adds: kernels
# times the positions of its maps.
_C3D = ((3, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512))
_C3D_MAPS = (16 * 112**2, 16 * 56**2, *[8 * 28**2] * 2, *[4 * 14**2] * 2, *[2 * 7**2] * 2)
_C3D_DENSE = ((512 * 4 * 4, 4096), (4096, 4096), (4096, 487))
VIDEO = {
    "c3d": Golden(
        sum(27 * a * b + b for a, b in _C3D) + sum(a * b + b for a, b in _C3D_DENSE),
        (
            sum(27 * a * b * n for (a, b), n in zip(_C3D, _C3D_MAPS, strict=True))
            + sum(a * b for a, b in _C3D_DENSE)
        )
        / 1e9,
    ),
}

GOLDEN = {
    **TORCHVISION,
    **AIRBENCH,
    **MOBILENET_V1,
    **CIFAR,
    **WIDE_RESNETS,
    **CIFAR_PREACT,
    **NF_RESNETS,
    **FIXUP_RESNETS,
    **DENSENETS,
    **SMALL_NETS,
    **SHUFFLENET_V1,
    **UNETS,
    **SEQUENCES,
    **PREACT,
    **VIDEO,
}
