use crate::batch::Batch;
use crate::error::Error;
use crate::kinds::Making;
#[derive(Clone, PartialEq, prost::Message)]
pub struct DescriptorsImage {}
pub struct Table;
pub fn collect(_: &[i32], _: crate::kinds::Rules, _: &dyn std::any::Any) -> Result<Table, Error> {
    Ok(Table)
}
pub fn capture(_: &Table) -> Result<DescriptorsImage, Error> {
    Ok(DescriptorsImage {})
}
pub fn create(_: &DescriptorsImage, _: &dyn Making) -> Result<(), Error> {
    Ok(())
}
pub fn install(
    _: &DescriptorsImage,
    _: &(),
    _: i32,
    _: impl FnMut(&Batch) -> Result<crate::batch::Answers, Error>,
) -> Result<(), Error> {
    Ok(())
}
pub fn connect(_: &DescriptorsImage, _: i32, _: &mut Batch) -> Result<(), Error> {
    Ok(())
}
