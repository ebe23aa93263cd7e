/// Bugs for the tests to find: each breaks one rule of the translation. Nothing but a test chooses one.
enum TranslationBug: String, CaseIterable, Sendable {
    case unsignedAtLeast, signedAbove, signExtend32, moveSigned32, unmaskedShift, logicalShift, divisionByZero, remainderByZero
    case keepsUpperHalf, loadSigned, contextEnd, compareExchangeTarget, noFetch, noTracking, groupedWrites, farWrites, repeatedWrites
    case noLook, noBoundsCheck
    case arrayBound, hashSeed, hashRest, tailCallLimit, tailCallIndex, checksumSeed, calleeFrame, loopCount, verdict, headDelta, lruUse
    case redirectFlags, emptyTarget, eventSilence, staleMachine, contextInMemory
}
