"""Every upstream variant is executed, lowered or refused by name; the two lists are upstream's own, kept here as data."""

from __future__ import annotations

import pytest

from simple_magic.mir import census
from simple_magic.mir.ops import OPS

SELF_HOSTED = """
Const Copy Move BinOp CheckedBinOp UnaryOp Cast Bitcast Alloc Load Store GetElementPtr LoadGlobal StoreGlobal GlobalAddr Aggregate GetField SetField Call
CallIndirect Intrinsic Drop DebugValue Nop Ref DecisionProbe ConditionProbe TransferOut TransferIn FreezeRegion AcquireSnapshot CommitUpdates
ResultMatchSemantic PipeForward Compose Parallel LayerConnect CreatePromise Await Yield Spawn Send Receive InlineAsm GpuKernelDef GpuLaunch GpuGlobalId
GpuLocalId GpuBlockId GpuBlockDim GpuGridDim GpuBarrier GpuMemFence GpuSharedAlloc GpuAtomicOp GpuAtomicCas HostGpuLaneBegin HostGpuLaneEnd VhdlProcess
VhdlSignalAssign VhdlVarAssign VhdlPortMap VhdlResize VhdlSlice VhdlConcat SimdAddF32x4 SimdSubF32x4 SimdMulF32x4 SimdDivF32x4 SimdAddF32x8 SimdSubF32x8
SimdMulF32x8 SimdDivF32x8 SimdAddF64x4 SimdSubF64x4 SimdMulF64x4 SimdDivF64x4 SimdFmaF32x4 SimdFmaF32x8 SimdFmaF64x4 SimdAddI32x4 SimdSubI32x4 SimdMulI32x4
SimdXorI32x4 SimdAndI32x4 SimdOrI32x4 SimdShlI32x4 SimdShrI32x4 SimdAddI32x8 SimdSubI32x8 SimdMulI32x8 SimdXorI32x8 SimdAndI32x8 SimdOrI32x8 SimdShlI32x8
SimdShrI32x8 SimdHaddF32x4 SimdHmaxF32x4 SimdHminF32x4 ScalableVecFence MirSimdSplat MirSimdLoad MirSimdStore MirSimdGather MirSimdScatter MirSimdBinop
MirSimdCmp MirSimdMaskOp MirSimdTernop MirSimdUnop MirSimdReduce MirSimdShuffle MirSimdPermute MirSimdSelect MirSimdScalableVsetvl MaskFromCmp MaskedAdd
MaskedMul MaskedFma PredicatedAdd PredicatedMul PredicatedFma MirWarpShfl MirWarpReduce MirWarpBallot MirWarpActivesMask MirWarpSync
""".split()
SELF_HOSTED_TERMINATORS = "Goto Ret If Switch Unreachable Abort CallTerminator Throw Resume".split()
RUST = """
ConstInt ConstFloat ConstBool ConstString ConstSymbol Copy AggregateCopy BinOp UnaryOp Cast Call InlineAsm InterpCall InterpEval Load Store GlobalLoad
GlobalStore LocalAddr GetElementPtr GcAlloc PointerNew PointerRef PointerDeref Drop EndScope BoxInt BoxFloat UnboxInt UnboxFloat ArrayLit TupleLit VecLit
DictLit IndexGet IndexSet SliceOp Spread FStringFormat StructInit FieldGet FieldSet ClosureCreate IndirectCall MethodCallStatic MethodCallVirtual
BuiltinMethod ExternMethodCall PatternTest PatternBind EnumDiscriminant EnumPayload EnumUnit EnumWith UnionDiscriminant UnionPayload UnionWrap OptionSome
ResultOk ResultErr OptionNone TryUnwrap FutureCreate Await Wait ActorSpawn ActorSend ActorRecv ActorJoin ActorReply GeneratorCreate Yield GeneratorNext
ContractCheck ContractOldCapture DecisionProbe ConditionProbe PathProbe UnitBoundCheck UnitWiden UnitNarrow UnitSaturate VecSum VecProduct VecMin VecMax
VecAll VecAny VecSqrt VecAbs VecFloor VecCeil VecRound VecRecip VecExtract VecWith VecShuffle VecBlend VecSelect VecLoad VecStore VecGather VecScatter
VecMaskedLoad VecMaskedStore VecFma VecMinVec VecMaxVec VecClamp NeighborLoad GpuGlobalId GpuLocalId GpuGroupId GpuGlobalSize GpuLocalSize GpuNumGroups
GpuBarrier GpuMemFence GpuSharedAlloc GpuAtomic GpuAtomicCmpXchg GpuLoadF64 GpuLoadI64 GpuStoreF64 GpuStoreI64 ParMap ParReduce ParFilter ParForEach
""".split()
RUST_TERMINATORS = "Return Jump Branch Switch Unreachable".split()

CENSUSES = [
    (census.SELF_HOSTED, SELF_HOSTED),
    (census.SELF_HOSTED_TERMINATORS, SELF_HOSTED_TERMINATORS),
    (census.RUST, RUST),
    (census.RUST_TERMINATORS, RUST_TERMINATORS),
]


def test_the_list_of_self_hosted_variants_has_its_127_names():
    assert len(SELF_HOSTED) == len(set(SELF_HOSTED)) == 127


@pytest.mark.parametrize(("fates", "names"), CENSUSES)
def test_every_upstream_variant_has_a_fate_and_no_other(fates, names):
    assert sorted(fates) == sorted(names)


@pytest.mark.parametrize(("fates", "names"), CENSUSES)
def test_an_executed_variant_names_opcodes_and_a_refused_one_a_reason(fates, names):
    for fate in fates.values():
        if fate.status == "executed":
            assert all(word in OPS for word in fate.how.removesuffix(" nil").split()), fate
        else:
            assert len(fate.how.split()) > 1 or fate.how in OPS, fate


def test_every_upstream_name_in_the_opcode_table_is_executed():
    known = {*census.SELF_HOSTED, *census.SELF_HOSTED_TERMINATORS, *census.RUST, *census.RUST_TERMINATORS}
    for row in OPS.values():
        for name in row.upstream:
            assert name.partition(".")[0] in known, (row.name, name)
